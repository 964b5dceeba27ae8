/**
 * Predicted and measured memory of workers and coordinator for several sizes, on real processes with one thread each. Linux only; build
 * first.
 *
 *     npm run bench:memory -- [--sizes tiny,d128] [--workers 1,2] [--parts]
 */
import { parseArgs } from "node:util";
import { jobMemory } from "@segue/engine";
import { CAN_MEASURE_PEAKS, MEMORY_SPECS, measureJob } from "../test/helpers/memory.js";

const { values: options } = parseArgs({
  options: {
    sizes: { type: "string", default: Object.keys(MEMORY_SPECS).join(";") },
    workers: { type: "string", default: "1,2" },
    parts: { type: "boolean", default: false },
  },
});

const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(0);
const compared = (predicted: number, measured: number): string => {
  const offPercent = (100 * (predicted - measured)) / measured;
  return `${mib(predicted)} | ${mib(measured)} | ${offPercent >= 0 ? "+" : ""}${offPercent.toFixed(1)} %`;
};

if (!CAN_MEASURE_PEAKS) throw new Error("this system does not tell the largest memory of a process (no /proc)");
console.log(
  "| size | workers | worker: predicted MiB | measured | | above the process: predicted | measured | | coordinator: predicted | measured | |",
);
console.log("|---|---|---|---|---|---|---|---|---|---|---|");
for (const size of options.sizes.split(";")) {
  for (const workers of options.workers.split(",").map(Number)) {
    const { spec, workerBytes, coordinatorBytes } = await measureJob(size, workers);
    const { worker, coordinator, parameters } = jobMemory(spec, { workers, engine: "cpu", threads: 1 });
    const constant = worker.parts.filter(({ name }) => ["process", "heaps"].includes(name));
    const processBytes = constant.reduce((sum, { bytes }) => sum + bytes, 0);
    // What constants make up is no achievement of a formula.
    const above = workerBytes < 2 * processBytes ? "| |" : compared(worker.hostBytes - processBytes, workerBytes - processBytes);
    const name = `${size}: ${(parameters / 1e6).toPrecision(3)} M`;
    const ofCoordinator = compared(coordinator.hostBytes, coordinatorBytes);
    console.log(`| ${name} | ${workers} | ${compared(worker.hostBytes, workerBytes)} | ${above} | ${ofCoordinator} |`);
    if (options.parts)
      for (const part of worker.parts) console.log(`    ${part.name}: ${(part.bytes / 2 ** 20).toFixed(1)} MiB = ${part.formula}`);
  }
}
