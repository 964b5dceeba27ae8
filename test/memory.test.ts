import assert from "node:assert/strict";
import { jobMemory } from "@segue/engine";
import { trainOnLongDocument } from "./helpers/long-document.js";
import { CAN_MEASURE_PEAKS, MEMORY_SPECS, measureJob } from "./helpers/memory.js";

/** Share by which two numbers of bytes differ. */
const difference = (bytes: number, from: number): number => Math.abs(bytes - from) / from;
const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(0)} MiB`;

/** The parts that no formula gives: constants, measured once. */
const OF_PROCESS = ["process", "heaps"];
/** From this many times the process itself on, what lies above it must be right, too. */
const LARGE = 3;

describe("memory", () => {
  before(function () {
    if (CAN_MEASURE_PEAKS) return;
    console.log("      skipped: this system does not tell the largest memory of a process (/proc/PID/status, VmHWM)");
    this.skip();
  });

  for (const size of Object.keys(MEMORY_SPECS)) {
    for (const workers of [1, 2]) {
      it(`is predicted within 10 %: ${size} on ${workers === 1 ? "one worker" : "two workers"}`, async () => {
        const { spec, workerBytes } = await measureJob(size, workers);
        const { parts, hostBytes } = jobMemory(spec, { workers, engine: "cpu", threads: 1 }).worker;
        const told = `predicted ${mib(hostBytes)}, measured ${mib(workerBytes)}`;
        assert.ok(difference(hostBytes, workerBytes) <= 0.1, told);
        const processBytes = parts.reduce((sum, { name, bytes }) => sum + (OF_PROCESS.includes(name) ? bytes : 0), 0);
        if (workerBytes < LARGE * processBytes) return;
        assert.ok(difference(hostBytes - processBytes, workerBytes - processBytes) <= 0.1, `above ${mib(processBytes)}: ${told}`);
      });
    }
  }

  it("is the same after 10 segments of a 10-million-token document as at its end, within 2 %", async () => {
    const peaks = await trainOnLongDocument(10_000_000, 1024, 3000);
    const early = peaks.find(({ segments }) => segments >= 10);
    const last = peaks.at(-1);
    assert.ok(early && last);
    assert.equal(last.segments, Math.ceil(10_000_000 / 1024));
    assert.ok(early.segments < last.segments / 10, `first seen after ${early.segments} segments`);
    for (const process of ["workerBytes", "coordinatorBytes"] as const) {
      assert.ok(last[process] <= 1.02 * early[process], `${process}: ${mib(early[process])} grew to ${mib(last[process])}`);
    }
  });
});
