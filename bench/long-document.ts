/**
 * Memory of worker and coordinator while one document of any length is trained on, from a real file through the coordinator's reader and
 * cutter to the cpu engine. Linux only; build first.
 *
 *     npm run bench:long-document -- [--tokens 10000000] [--segment 1024] [--warm-up 3000]
 *
 * Before the measurement both processes train on `--warm-up` segments of another document.
 */
import { parseArgs } from "node:util";
import { CAN_MEASURE_PEAKS } from "../test/helpers/memory.js";
import { trainOnLongDocument, type PeaksAtSegment } from "../test/helpers/long-document.js";

const { values: options } = parseArgs({
  options: {
    tokens: { type: "string", default: "10000000" },
    segment: { type: "string", default: "1024" },
    "warm-up": { type: "string", default: "3000" },
  },
});
if (!CAN_MEASURE_PEAKS) throw new Error("this system does not tell the largest memory of a process (no /proc)");

const startedMs = performance.now();
const peaks = await trainOnLongDocument(Number(options.tokens), Number(options.segment), Number(options["warm-up"]));
const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);
console.log(`${((performance.now() - startedMs) / 1000).toFixed(0)} s`);
console.log("| segments | tokens | worker's peak, MiB | coordinator's |\n|---|---|---|---|");
const shown = (all: readonly PeaksAtSegment[]): PeaksAtSegment[] => {
  const wanted = [10, 100, 1000].flatMap((segment) => all.find(({ segments }) => segments >= segment) ?? []);
  return [...new Set([...wanted, ...all.slice(-1)])];
};
for (const { segments, workerBytes, coordinatorBytes } of shown(peaks)) {
  console.log(`| ${segments} | ${segments * Number(options.segment)} | ${mib(workerBytes)} | ${mib(coordinatorBytes)} |`);
}
