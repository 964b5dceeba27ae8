/**
 * A long run under fire: a job on three workers, one of which dies by SIGKILL every so often and comes back, against the same job undisturbed.
 *
 *     npm run bench:soak -- [--minutes 30] [--every 20] [--delay 15] [--seed 1] [--kill-coordinator]
 *
 * The disturbed workers reach each other through a network that delays everything by --delay milliseconds, which also keeps the run from
 * being a matter of this machine's speed. Prints deaths and recoveries, whether both runs end in the same bits and have the same loss at every step, and the memory of every
 * process over time. Needs `npm run build`, redis-server and Linux (/proc).
 */
import { availableParallelism, cpus } from "node:os";
import { parseArgs } from "node:util";
import { runChaos, type LocalCluster } from "@segue/cli";
import { parseJobSpec } from "@segue/core";
import { connectRedis, createLogger, redisKeys } from "@segue/runtime";
import { processUsage } from "./scale/process-usage.js";

const { values: options } = parseArgs({
  options: {
    minutes: { type: "string", default: "30" },
    every: { type: "string", default: "20" },
    delay: { type: "string", default: "15" },
    seed: { type: "string", default: "1" },
    "kill-coordinator": { type: "boolean", default: false },
  },
});

/** About what a step takes with the default delay, deaths included; a training lasts about as long as asked for. */
const STEP_MS = 28;
const steps = Math.round((60_000 * Number(options.minutes)) / STEP_MS);
const SAMPLE_MS = 5_000;

const { spec } = parseJobSpec(`
name: soak
seed: 5
model: { layers: 1, dModel: 32, dState: 16, headDim: 16, chunk: 32 }
data: { passkey: { documentTokens: 2000, digits: 3, askProbability: 0.5, answerWeight: 4 } }
tbptt: { segmentTokens: 64, segmentsPerChain: 0 }
batch: { shards: 6, lanesPerShard: 2 }
optimizer: { learningRate: 0.003 }
schedule: { warmupSteps: 50, decaySteps: ${Math.floor(steps / 2)} }
train: { steps: ${steps}, engine: cpu }
checkpoints: { everySteps: 500, keepLast: 2 }
workers: { min: 2, max: 3 }
`);

interface Sample {
  readonly name: string;
  readonly minute: number;
  readonly rssBytes: number;
}

const samples: Sample[] = [];
const losses: Record<"undisturbed" | "disturbed", Map<number, string>> = { undisturbed: new Map(), disturbed: new Map() };
let sampling: NodeJS.Timeout | undefined;
const startedAtMs = Date.now();

async function sample(cluster: LocalCluster, clusterStartedAtMs: number): Promise<void> {
  const minute = (Date.now() - clusterStartedAtMs) / 60_000;
  for (const name of cluster.names) {
    // A process that is dead just now has no memory to tell of.
    const usage = await processUsage(cluster.process(name).pid).catch(() => undefined);
    if (usage) samples.push({ name, minute, rssBytes: usage.rssBytes });
  }
}

/** Loss of every step, a repeated step's last; the metrics' stream keeps the newest 20,000 of an attempt. */
async function readLosses(cluster: LocalCluster, jobId: string, attempts: number): Promise<Map<number, string>> {
  const redis = connectRedis(cluster.redisUrl, { logger: createLogger("soak", "warn"), role: "reader" });
  const found = new Map<number, string>();
  try {
    for (let attempt = 1; attempt <= attempts; attempt++) {
      for (const [, fields] of await redis.xrange(redisKeys.train(jobId, attempt), "-", "+")) {
        const entry = Object.fromEntries(fields.flatMap((name, i) => (i % 2 === 0 ? [[name, fields[i + 1] ?? ""]] : [])));
        found.set(Number(entry["step"]), entry["loss"] ?? "");
      }
    }
    return found;
  } finally {
    redis.disconnect();
  }
}

console.log(
  `${cpus()[0]?.model ?? "unknown CPU"}, ${availableParallelism()} cores, Node ${process.version}; ${steps} steps, seed ${options.seed}`,
);
const result = await runChaos(
  {
    spec,
    workers: 3,
    engine: "cpu",
    seed: Number(options.seed),
    everyMs: 1_000 * Number(options.every),
    linkDelayMs: Number(options.delay),
    killCoordinator: options["kill-coordinator"],
    onNote: (text) => console.log(`${((Date.now() - startedAtMs) / 1_000).toFixed(0)} s: ${text}`),
    onCluster: (cluster) => {
      const clusterStartedAtMs = Date.now();
      sampling = setInterval(() => void sample(cluster, clusterStartedAtMs), SAMPLE_MS);
    },
    onFinished: async (run, cluster, { job }) => {
      clearInterval(sampling);
      losses[run] = await readLosses(cluster, job.jobId, job.attempt);
    },
  },
  { env: process.env, signal: new AbortController().signal },
);

const compared = [...losses.undisturbed].filter(([step]) => losses.disturbed.has(step));
const different = compared.filter(([step, loss]) => losses.disturbed.get(step) !== loss);
const recoveries = result.deaths.flatMap(({ recoveryMs }) => (recoveryMs === undefined ? [] : [recoveryMs])).sort((a, b) => a - b);
const at = (share: number): string => `${((recoveries[Math.floor(share * (recoveries.length - 1))] ?? NaN) / 1_000).toFixed(1)} s`;

console.log(
  `\n${result.deaths.length} deaths in ${(result.disturbed.seconds / 60).toFixed(1)} min; next committed step after ${at(0.5)} (median), ${at(1)} (longest)`,
);
console.log(`same bits at the end: ${result.equal} (${result.disturbed.digest})`);
console.log(`loss of ${compared.length} steps compared, ${different.length} differ`);
console.log("\n| process | minutes | mean MiB, first quarter | mean MiB, last quarter | largest MiB |\n|---|---|---|---|---|");
for (const name of new Set(samples.map((entry) => entry.name))) {
  const own = samples.filter((entry) => entry.name === name);
  const quarter = Math.max(1, Math.floor(own.length / 4));
  const mebibytes = (part: readonly Sample[]): string =>
    (part.reduce((sum, { rssBytes }) => sum + rssBytes, 0) / part.length / 2 ** 20).toFixed(0);
  const largest = own.reduce((most, entry) => (entry.rssBytes > most.rssBytes ? entry : most));
  const minutes = `${own[0]?.minute.toFixed(0)} to ${own.at(-1)?.minute.toFixed(0)}`;
  console.log(
    `| ${name} | ${minutes} | ${mebibytes(own.slice(0, quarter))} | ${mebibytes(own.slice(-quarter))} | ${mebibytes([largest])} |`,
  );
}
process.exitCode = result.equal && different.length === 0 ? 0 : 1;
