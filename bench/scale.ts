/**
 * What a coordinator bears: simulated workers (real connections and messages, no engine) on one job of many shards and tiny segments.
 *
 *     npm run bench:scale -- [--workers 10,100,1000] [--shards 1000] [--seconds 60] [--rate 8000] [--processes 2] [--verbose]
 *
 * An assignment is one segment of one shard: sent, received, checked and answered for. `rate` is how many a second the workers would do
 * if the coordinator cost no time; 0: as many as it gives them. Needs `npm run build` and Linux (/proc).
 */
import { parseArgs } from "node:util";
import { runScale, type ScaleResult } from "./scale/scale-run.js";

const { values: options } = parseArgs({
  options: {
    workers: { type: "string", default: "10,100,1000" },
    shards: { type: "string", default: "1000" },
    seconds: { type: "string", default: "60" },
    rate: { type: "string", default: "8000" },
    processes: { type: "string", default: "2" },
    verbose: { type: "boolean", default: false },
  },
});
const WARMUP_SECONDS = 10;

const mebibytes = (bytes: number): string => (bytes / 2 ** 20).toFixed(0);
const max = (result: ScaleResult, key: "lateMs" | "answerMs" | "rssBytes"): number =>
  Math.max(...result.samples.map((sample) => sample[key]));

function row(result: ScaleResult): string {
  const { workers, samples, emptyRssBytes } = result;
  const quarter = Math.ceil(samples.length / 4);
  const meanRss = (part: typeof samples): number => part.reduce((sum, { rssBytes }) => sum + rssBytes, 0) / part.length;
  const [early, late] = [meanRss(samples.slice(0, quarter)), meanRss(samples.slice(-quarter))];
  const cells = [
    workers,
    result.segmentsPerSecond.toFixed(0),
    result.messagesPerSecond.toFixed(0),
    result.pullsPerSecond.toFixed(0),
    `${(100 * result.coordinatorCpu).toFixed(0)} %`,
    `${((1e6 * result.coordinatorCpu) / (result.messagesPerSecond + 2 * result.pullsPerSecond)).toFixed(0)} us`,
    `${mebibytes(early)} -> ${mebibytes(late)}`,
    `${((late - emptyRssBytes) / workers / 1024).toFixed(0)} KiB`,
    `${max(result, "lateMs").toFixed(0)} ms`,
    `${max(result, "answerMs").toFixed(0)} ms`,
    `${(result.startMs / 1_000).toFixed(1)} s`,
    `${result.startLateMs.toFixed(0)} ms`,
  ];
  return `| ${cells.join(" | ")} |`;
}

console.log(
  "| workers | assignments/s | messages/s | states pulled/s | CPU | per message | RSS, MiB | RSS per worker | latest pulse | slowest answer | start | latest at start |",
);
console.log("|---|---|---|---|---|---|---|---|---|---|---|---|");
for (const workers of options.workers.split(",").map(Number)) {
  const shards = Math.max(workers, Number(options.shards));
  const rate = Number(options.rate);
  const result = await runScale({
    workers,
    shards,
    processes: Math.min(workers, Number(options.processes)),
    seconds: Number(options.seconds),
    warmupSeconds: WARMUP_SECONDS,
    stepMs: rate === 0 ? 0 : (1_000 * shards) / rate,
    ...(options.verbose ? { onProgress: (line: string) => console.error(line) } : {}),
  });
  console.log(row(result));
  for (const fault of result.end.faults.slice(0, 10)) console.error(`fault: ${fault}`);
  if (result.end.faults.length > 0 || result.end.generations > 1) {
    console.error(`${result.end.faults.length} faults, ${result.end.generations} generations`);
    process.exitCode = 1;
  }
}
