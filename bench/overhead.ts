/**
 * What orchestration costs: committed tokens per second of a real cluster against the bare engine loop on the same cores, one thread a
 * worker, everything pinned. Linux only (taskset); build first.
 *
 *     npm run bench:overhead -- [--seconds 12] [--models demo,small] [--workers 1,2] [--repeats 3]
 *
 * Worker k runs on core k, coordinator and Redis on the last core. "bare" is one engine loop per worker on the same cores at the same
 * time, each with its share of the shards and nothing to exchange; it runs before and after every window in which the cluster is measured.
 */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { startLocalCluster, type LocalCluster } from "@segue/cli";
import { parameterLayout, parseJobSpec, validateJobSpec, type JobSpec } from "@segue/core";
import { createEngine, initialParameters } from "@segue/engine";
import { Jobs } from "@segue/protocol";
import { connectClient, jobSpecToProto } from "@segue/runtime";

const { values: options } = parseArgs({
  options: {
    seconds: { type: "string", default: "12" },
    models: { type: "string", default: "demo,small" },
    workers: { type: "string", default: "1,2" },
    repeats: { type: "string", default: "3" },
    bare: { type: "string" },
    shards: { type: "string", default: "1" },
  },
});

const SEGMENT_TOKENS = 256;
const LANES_PER_SHARD = 4;

/** The demo's recipe, and a language model of a few million parameters on the same documents. */
function specOf(model: string): JobSpec {
  const recipe = readFileSync(fileURLToPath(new URL("../recipes/passkey-demo.yaml", import.meta.url)), "utf8");
  const { spec } = parseJobSpec(recipe);
  const sizes = { demo: {}, small: { layers: 4, dModel: 384, headDim: 64 } }[model];
  if (!sizes) throw new Error(`no model ${model}; there are demo and small`);
  return validateJobSpec({
    ...spec,
    name: `overhead-${model}`,
    model: { ...spec.model, ...sizes },
    train: { ...spec.train, steps: 1_000_000, engine: "cpu" },
    schedule: undefined,
    checkpoints: { everySteps: 0, keepLast: 1 },
    rounds: undefined,
    evaluations: [],
  }).spec;
}

/** Trains `shards` shards of the model in this process until told to stop by SIGTERM, and prints a line of tokens per second. */
async function bareLoop(model: string, shards: number, seconds: number): Promise<void> {
  const { model: sizes, optimizer } = specOf(model);
  const engine = await createEngine("cpu", { model: sizes, precision: "f32", threads: 1 });
  engine.writeParameters(initialParameters(sizes, 1));
  const rows = LANES_PER_SHARD * SEGMENT_TOKENS;
  const tokens_BT = Int32Array.from({ length: rows }, (_, i) => (i * 7919) % 256);
  const batch = { lanes: LANES_PER_SHARD, tokens: SEGMENT_TOKENS, tokens_BT, labels_BT: tokens_BT };
  const states = Array.from({ length: shards }, () => engine.createStates(LANES_PER_SHARD));
  const [sum, gradient] = [new Float32Array(engine.layout.size), new Float32Array(engine.layout.size)];
  let step = 0;
  const train = (): void => {
    states.forEach((shard, index) => {
      engine.forwardBackward(batch, shard, index === 0 ? sum : gradient);
      if (index > 0) for (let i = 0; i < sum.length; i++) sum[i]! += gradient[i]!;
    });
    engine.applyAdamW(sum, { optimizer, learningRate: 1e-4, step: ++step, totalWeight: shards * rows });
  };
  train();
  const before = step;
  const startedMs = performance.now();
  while (performance.now() - startedMs < 1000 * seconds) train();
  const elapsedMs = performance.now() - startedMs;
  console.log(JSON.stringify({ tokens: (step - before) * shards * rows, elapsedMs }));
  engine.close();
}

/** Tokens per second of the bare loops of `workers` workers, all at once. */
async function bare(model: string, workers: number, shards: number, seconds: number): Promise<number> {
  const rates = Array.from({ length: workers }, async (_, core) => {
    const args = ["--import=tsx", "--conditions=segue-source", fileURLToPath(import.meta.url)];
    const own = ["--bare", model, "--shards", String(shards / workers), "--seconds", String(seconds)];
    const child = spawn("taskset", ["-c", String(core), process.execPath, ...args, ...own], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let text = "";
    child.stdout.setEncoding("utf8").on("data", (part: string) => (text += part));
    await once(child, "close");
    const { tokens, elapsedMs } = JSON.parse(text) as { tokens: number; elapsedMs: number };
    return (1000 * tokens) / elapsedMs;
  });
  return (await Promise.all(rates)).reduce((sum, rate) => sum + rate, 0);
}

/** What the coordinator logs of a commit, and a worker of a round. */
interface Commit {
  readonly time: string;
  readonly event: "roundCommitted";
  readonly step: number;
}
interface Round {
  readonly msg: "round_done";
  readonly firstStep: number;
  readonly steps: number;
  readonly computeMs: number;
  readonly exchangeMs: number;
  readonly pulledBytes: number;
  readonly pulls: number;
}

interface Measured {
  readonly stepsPerSecond: number;
  /** Of each worker. */
  readonly rounds: readonly (readonly Round[])[];
}

/** One window, with the bare loops just before and after it. */
interface Window extends Measured {
  readonly bareRate: number;
}

/** Rounds grow for a moment, and the first steps are slower. */
const WARM_UP_MS = 6_000;

/**
 * A cluster training one job. Between windows its processes are stopped, so that bare loops can have the cores to themselves in between:
 * what else a machine does changes from one minute to the next.
 */
async function measure(model: string, spec: JobSpec, workers: number): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), "segue-bench-"));
  let cluster: LocalCluster | undefined;
  let guard: ChildProcess | undefined;
  try {
    const services = { evaluators: 0, dashboard: false, workers, threads: 1, engine: "cpu", logLevel: "debug" } as const;
    cluster = await startLocalCluster({ dir, ...services, env: { SEGUE_HEARTBEAT_MS: "60000" } });
    const [running, last] = [cluster, availableParallelism() - 1];
    guard = guardOf(cluster.names.map((name) => running.process(name).pid));
    for (const name of cluster.names) {
      const core = name === "coordinator" ? last : Number(name.split("-")[1]) - 1;
      execFileSync("taskset", ["-a", "-c", "-p", String(core), String(cluster.process(name).pid)], { stdio: "ignore" });
    }
    const jobs = connectClient(Jobs, cluster.coordinator);
    const job = jobSpecToProto({ ...spec, workers: { ...spec.workers, min: workers, max: workers } });
    await jobs.submitJob({ source: { case: "spec", value: job } });
    jobs.close();
    await sleep(WARM_UP_MS);
    const signal = (name: NodeJS.Signals): void => running.names.forEach((service) => running.process(service).signal(name));
    const windows: Window[] = [];
    for (let repeat = 0; repeat < Number(options.repeats); repeat++) {
      signal("SIGSTOP");
      const before = await bare(model, workers, spec.batch.shards, seconds / 4);
      signal("SIGCONT");
      const measured = await measureWindow(cluster, workers);
      signal("SIGSTOP");
      const after = await bare(model, workers, spec.batch.shards, seconds / 4);
      signal("SIGCONT");
      windows.push({ ...measured, bareRate: (before + after) / 2 });
    }
    report(model, spec, workers, windows);
  } finally {
    guard?.kill("SIGKILL");
    cluster?.killAll();
    await cluster?.close();
    rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

/**
 * Kills the services once this process is gone, however it ends: nobody else would ever wake stopped ones. A shell that waits for the end
 * of the pipe to us; kill it first.
 */
function guardOf(pids: readonly number[]): ChildProcess {
  const script = `read -r _; kill -KILL ${pids.join(" ")}`;
  return spawn("sh", ["-c", script], { stdio: ["pipe", "ignore", "ignore"], detached: true });
}

async function measureWindow(cluster: LocalCluster, workers: number): Promise<Measured> {
  const startedAtMs = Date.now();
  await sleep(1000 * seconds);
  const commits = linesOf<Commit>(cluster.process("coordinator").logPath).filter(({ event, time }) => {
    return event === "roundCommitted" && Date.parse(time) >= startedAtMs;
  });
  // Steps of the first round, and of the second, which may be begun while the first is committed, may have been stopped on the way.
  const [first, end] = [commits[1], commits.at(-1)];
  if (!first || !end || first === end) throw new Error("too few rounds were committed; measure longer (--seconds)");
  const rounds = Array.from({ length: workers }, (_, index) => {
    return linesOf<Round>(cluster.process(`worker-${index + 1}`).logPath).filter(({ msg, firstStep }) => {
      return msg === "round_done" && firstStep >= first.step && firstStep < end.step;
    });
  });
  return { stepsPerSecond: (1000 * (end.step - first.step)) / (Date.parse(end.time) - Date.parse(first.time)), rounds };
}

function linesOf<T>(logPath: string): T[] {
  const lines = readFileSync(logPath, "utf8").split("\n");
  return lines.flatMap((line) => (line.startsWith("{") ? [JSON.parse(line) as T] : []));
}

function report(model: string, spec: JobSpec, workers: number, windows: readonly Window[]): void {
  const tokensPerStep = spec.batch.shards * LANES_PER_SHARD * SEGMENT_TOKENS;
  const rate = median(windows.map(({ stepsPerSecond }) => stepsPerSecond * tokensPerStep));
  const shares = windows.map(({ stepsPerSecond, bareRate }) => (stepsPerSecond * tokensPerStep) / bareRate);
  const stepMs = windows.reduce((total, window) => total + 1000 / window.stepsPerSecond, 0) / windows.length;
  const parameters = `${(parameterLayout(spec.model).size / 1e6).toFixed(2)}M`;
  const percent = (share: number): string => (100 * (1 - share)).toFixed(1);
  console.log(
    `${model} (${parameters}), ${workers} worker(s): ${rate.toFixed(0)} tokens/s, overhead ${percent(median(shares))} % ` +
      `(${shares.map(percent).join(", ")}) of ${median(windows.map(({ bareRate }) => bareRate)).toFixed(0)} bare`,
  );
  for (let worker = 0; worker < workers; worker++) {
    const rounds = windows.flatMap((window) => window.rounds[worker] ?? []);
    const sum = (field: "steps" | "computeMs" | "exchangeMs" | "pulledBytes" | "pulls"): number =>
      rounds.reduce((total, round) => total + round[field], 0);
    const perStep = (field: Parameters<typeof sum>[0]): number => sum(field) / sum("steps");
    const restMs = stepMs - perStep("computeMs") - perStep("exchangeMs");
    console.log(
      `    worker ${worker + 1}, a step: ${stepMs.toFixed(2)} ms = compute ${perStep("computeMs").toFixed(2)} + exchange ` +
        `${perStep("exchangeMs").toFixed(2)} + rest ${restMs.toFixed(2)}; ${(perStep("pulledBytes") / 1024).toFixed(0)} KiB in ` +
        `${perStep("pulls").toFixed(2)} pulls; ${(sum("steps") / rounds.length).toFixed(0)} steps a round`,
    );
  }
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;
}

const seconds = Number(options.seconds);
if (options.bare !== undefined) await bareLoop(options.bare, Number(options.shards), seconds);
else {
  for (const model of options.models.split(",")) {
    const spec = specOf(model);
    for (const workers of options.workers.split(",").map(Number)) await measure(model, spec, workers);
  }
}
