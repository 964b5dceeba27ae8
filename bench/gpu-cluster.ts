/**
 * Workers on GPUs inside a real cluster (coordinator, workers, evaluator, Redis) on one machine: committed tokens per second against the
 * bare engine loop of one GPU on the same documents, before and after; then a passkey recipe with its heat map. Build first.
 *
 *     npm run bench:gpu-cluster -- [--models 130M,370M,1.3B] [--workers 1,2,4] [--round-ms 10000] [--shape 16x4096] [--transport auto]
 *                                  [--rounds 2] [--bare-seconds 6] [--passkey f32,bf16] [--engine cuda] [--peer]
 *
 * Every worker has one shard of `--shape` lanes x tokens (by default what suits the model). Workers beyond the number of GPUs share them; then
 * "bare" is one engine with all their shards. Else it is one GPU's speed times the number of workers: weak scaling. `--round-ms` names the
 * lengths of rounds to measure, `--rounds` how many of each at least, `--passkey` the precisions in which the demo's recipe is trained.
 * `--peer` runs PyTorch's DistributedDataParallel with the official code beside it, where that is installed (bench/peer-ddp.py).
 * Without the engine it says so and exits with code 3.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { heatMapOf, renderHeatMap, startLocalCluster, waitForEvaluation, type LocalCluster } from "@segue/cli";
import {
  byteTokenizer,
  parseJobSpec,
  passkeySource,
  SegmentCutter,
  SegueError,
  validateJobSpec,
  type JobSpec,
  type StepSegments,
} from "@segue/core";
import { createEngine, initialParameters } from "@segue/engine";
import { JobPhase, Jobs } from "@segue/protocol";
import { connectClient, connectRedis, createLogger, jobSpecToProto } from "@segue/runtime";

const NO_ENGINE = 3;
/** Enough that documents begin and end among them, as they do in the job. */
const BARE_STEPS = 8;
const WAIT_MS = 300_000;

const { values: options } = parseArgs({
  options: {
    models: { type: "string", default: "130M" },
    workers: { type: "string", default: "1" },
    shape: { type: "string" },
    transport: { type: "string", default: "auto" },
    "round-ms": { type: "string", default: "2000,10000" },
    rounds: { type: "string", default: "2" },
    "bare-seconds": { type: "string", default: "6" },
    passkey: { type: "string", default: "f32,bf16" },
    engine: { type: "string", default: "cuda" },
    peer: { type: "boolean", default: false },
  },
});

const engineName = options.engine === "cpu" ? "cpu" : "cuda";

function recipe(path: string): JobSpec {
  return parseJobSpec(readFileSync(path, "utf8")).spec;
}

/** Lanes and tokens of a worker's shard that keep one H200 busy and fit into it. */
const SHAPES: Readonly<Record<string, string>> = {
  "130M": "16x4096",
  "370M": "8x8192",
  "780M": "8x4096",
  "1.3B": "4x4096",
  "2.7B": "2x4096",
};

/** A named model on passkey documents of four segments, for as long as one likes. */
function speedSpec(model: string, shards: number): JobSpec {
  const [lanesPerShard = 1, segmentTokens = 1] = (options.shape ?? SHAPES[model] ?? "8x2048").split("x").map(Number);
  const { train, optimizer } = recipe("recipes/mamba2-130m.yaml");
  return validateJobSpec({
    name: `gpu-cluster-${model}`,
    model: { preset: `mamba2-${model.toLowerCase()}`, padVocabMultiple: 16 },
    optimizer,
    data: { passkey: { documentTokens: 4 * segmentTokens } },
    tbptt: { segmentTokens, segmentsPerChain: 0 },
    batch: { shards, lanesPerShard },
    train: { steps: 1_000_000, precision: engineName === "cpu" ? "f32" : train.precision, engine: engineName },
    sync: { transport: options.transport },
    checkpoints: { everySteps: 0 },
    workers: { min: shards, max: shards },
  }).spec;
}

function gpuCount(): number {
  if (engineName === "cpu") return 1;
  try {
    return execFileSync("nvidia-smi", ["-L"], { encoding: "utf8" }).trim().split("\n").length;
  } catch {
    return 1;
  }
}

/** The job's own first steps. */
async function firstSteps({ data, tbptt, batch, seed }: JobSpec): Promise<StepSegments[]> {
  const tokenizer = byteTokenizer();
  const source = passkeySource(tokenizer, data.passkey!, seed);
  const cutter = new SegmentCutter({ source, eosId: tokenizer.eosId, seed, data, tbptt, batch });
  const steps: StepSegments[] = [];
  while (steps.length < BARE_STEPS) steps.push((await cutter.next())!);
  return steps;
}

const tokensPerStep = ({ batch, tbptt }: JobSpec): number => batch.shards * batch.lanesPerShard * tbptt.segmentTokens;

/** Tokens per second of whole steps with nothing around them; the next step is handed over while one is computed. */
async function bare(spec: JobSpec): Promise<{ rate: number; detail: string }> {
  const { model, optimizer, batch, tbptt, train } = spec;
  const engine = await createEngine(engineName, { model, precision: train.precision, threads: 0 });
  engine.writeParameters(initialParameters(model, spec.seed));
  const states = Array.from({ length: batch.shards }, () => engine.createStates(batch.lanesPerShard));
  const segments = await firstSteps(spec);
  let steps = 0;
  const step = () => {
    const { shards, totalWeight } = segments[steps % segments.length]!;
    const parts = shards.map(({ tokens, labels, weights, resets }, shard) => {
      const arrays = { tokens_BT: tokens, labels_BT: labels, weights_BT: weights, resets_BT: resets };
      return { batch: { lanes: batch.lanesPerShard, tokens: tbptt.segmentTokens, ...arrays }, states: states[shard]! };
    });
    return engine.trainStep!(parts, { optimizer, learningRate: 1e-5, step: ++steps, totalWeight }, tbptt);
  };
  for (let i = 0; i < BARE_STEPS; i++) step()();
  const before = steps;
  const startedMs = performance.now();
  let waiting = step();
  while (performance.now() - startedMs < 1000 * Number(options["bare-seconds"])) {
    const next = step();
    waiting();
    waiting = next;
  }
  waiting();
  const seconds = (performance.now() - startedMs) / 1000;
  engine.close();
  const rate = ((steps - before) * tokensPerStep(spec)) / seconds;
  return { rate, detail: engine.description.detail };
}

async function withCluster<T>(workers: number, work: (cluster: LocalCluster) => Promise<T>): Promise<T> {
  const dir = mkdtempSync(join(tmpdir(), "segue-bench-"));
  let cluster: LocalCluster | undefined;
  try {
    const onCrash = ({ name, lastLogLines }: { name: string; lastLogLines: string }) =>
      console.error(`${name} ended:\n${lastLogLines}`);
    cluster = await startLocalCluster({ dir, workers, dashboard: false, engine: engineName, logLevel: "debug", onCrash });
    return await work(cluster);
  } finally {
    await cluster?.close();
    rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** What the coordinator logs of a commit, and a worker of a round. */
interface Commit {
  readonly time: string;
  readonly event: "roundCommitted";
  readonly step: number;
  readonly steps: number;
  readonly roundMs: number;
  /** Of it, until the lane states had come. */
  readonly statesMs: number;
}
interface Round {
  readonly time: string;
  readonly msg: "round_done";
  readonly firstStep: number;
  readonly steps: number;
  readonly computeMs: number;
  /** After the last step, until the snapshot was copied and until its weights were hashed. */
  readonly copiedMs: number;
  readonly hashedMs: number;
  readonly exchangeMs: number;
}

function linesOf<T>(cluster: LocalCluster, service: string): T[] {
  const lines = readFileSync(cluster.process(service).logPath, "utf8").split("\n");
  return lines.flatMap((line) => (line.startsWith("{") && line.endsWith("}") ? [JSON.parse(line) as T] : []));
}

/** Runs the job until enough rounds of full length are committed. */
async function measure(cluster: LocalCluster, spec: JobSpec, targetMs: number): Promise<{ rate: number; text: string }> {
  const jobs = connectClient(Jobs, cluster.coordinator);
  const startedAtMs = Date.now();
  const { job } = await jobs.submitJob({
    source: { case: "spec", value: jobSpecToProto({ ...spec, rounds: { targetMs, maxSteps: 10_000 } }) },
  });
  const jobId = job?.jobId ?? "";
  const least = Math.max(Number(options.rounds), Math.ceil(10_000 / targetMs));
  try {
    for (;;) {
      await sleep(500);
      const state = (await jobs.getJob({ jobId })).job;
      if (state?.phase === JobPhase.FAILED) throw new Error(`the job failed: ${state.reason}`);
      if (Date.now() - startedAtMs > WAIT_MS)
        throw new Error(`${least} rounds took too long; now at step ${state?.step}: ${state?.reason}`);
      const commits = linesOf<Commit>(cluster, "coordinator").filter(
        ({ event, time }) => event === "roundCommitted" && Date.parse(time) >= startedAtMs,
      );
      // Rounds grow fourfold until they last as long as they should; from there on they count. The time of the first ones tells nothing:
      // kernels are compiled in it, or the commit takes longer than the steps.
      const longest = Math.max(...commits.map(({ steps }) => steps));
      const settled = commits.findIndex(({ steps }) => steps > 0.6 * longest);
      const [first, last] = [commits[settled], commits.at(-1)];
      if (!first || !last || commits.length - 1 - settled < least) continue;
      const elapsedMs = Date.parse(last.time) - Date.parse(first.time);
      const steps = last.step - first.step;
      const rounds = linesOf<Round>(cluster, "worker-1").filter(
        ({ msg, firstStep }) => msg === "round_done" && firstStep >= first.step && firstStep < last.step,
      );
      const sum = (field: "computeMs" | "exchangeMs" | "copiedMs" | "hashedMs"): number =>
        rounds.reduce((total, round) => total + round[field], 0);
      const computeMs = sum("computeMs");
      const count = commits.length - 1 - settled;
      const commitMs = rounds.reduce((total, { time, firstStep, steps }) => {
        const commit = commits.find(({ step }) => step === firstStep + steps);
        return total + Date.parse(commit?.time ?? time) - Date.parse(time);
      }, 0);
      const counted = commits.slice(settled + 1);
      const statesMs = counted.reduce((total, commit) => total + commit.statesMs, 0) / counted.length;
      return {
        rate: (1000 * steps * tokensPerStep(spec)) / elapsedMs,
        text:
          `${count} rounds of ${(steps / count).toFixed(0)} steps, ${(elapsedMs / steps).toFixed(2)} ms a step, of which ` +
          `${(computeMs / steps).toFixed(2)} the first worker's engine's and ${(sum("exchangeMs") / steps).toFixed(2)} exchange; ` +
          `its snapshot is copied ${(sum("copiedMs") / rounds.length).toFixed(0)} ms and hashed ` +
          `${(sum("hashedMs") / rounds.length).toFixed(0)} ms after its last step, and committed ` +
          `${(commitMs / rounds.length).toFixed(0)} ms after that (${statesMs.toFixed(0)} ms for its lane states)`,
      };
    }
  } finally {
    await jobs.cancelJob({ jobId });
    jobs.close();
  }
}

/** Trains the demo's recipe to its end and prints its last heat map. */
async function passkey(cluster: LocalCluster, precision: "f32" | "bf16"): Promise<void> {
  const demo = recipe("recipes/passkey-demo.yaml");
  const spec = validateJobSpec({
    ...demo,
    train: { ...demo.train, precision: engineName === "cpu" ? "f32" : precision, engine: engineName },
    checkpoints: { everySteps: 0 },
    workers: { min: 1, max: 1 },
  }).spec;
  const jobs = connectClient(Jobs, cluster.coordinator);
  const redis = connectRedis(cluster.redisUrl, { logger: createLogger("bench", "warn"), role: "reader" });
  try {
    const startedAtMs = Date.now();
    const { job } = await jobs.submitJob({ source: { case: "spec", value: jobSpecToProto(spec) } });
    const jobId = job?.jobId ?? "";
    let last = job;
    for await (const change of jobs.watchJob({ jobId })) last = change.job ?? last;
    if (last?.phase !== JobPhase.SUCCEEDED) throw new Error(`the passkey job ended: ${last?.reason}`);
    const trainedAtMs = Date.now();
    const { name, passkey: cells } = spec.evaluations[0]!;
    const evaluation = {
      name,
      everyCheckpoints: 1,
      passkey: { ...cells!, lengths: [...cells!.lengths], depths: [...cells!.depths] },
    };
    const { evaluationId } = await jobs.submitEvaluation({ jobId, evaluation });
    const result = await waitForEvaluation(redis, evaluationId, { signal: AbortSignal.timeout(WAIT_MS) });
    const seconds = [trainedAtMs - startedAtMs, Date.now() - trainedAtMs].map((ms) => (ms / 1000).toFixed(1));
    console.log(
      `passkey-demo in ${precision} on ${last.engine}: ${last.step} steps, ${last.tokens} tokens in ${seconds[0]} s, loss ` +
        `${last.loss.toFixed(4)}; evaluated in ${seconds[1]} s: mean accuracy ${(100 * (result.accuracy ?? NaN)).toFixed(1)} %`,
    );
    console.log(renderHeatMap(heatMapOf(result), { colour: false }));
  } finally {
    jobs.close();
    redis.disconnect();
  }
}

/** One model on some workers, with rounds of each length. */
async function measureModel(model: string, workers: number): Promise<void> {
  const gpus = Math.min(workers, gpuCount());
  const spec = speedSpec(model, workers);
  // What one GPU does of it.
  const share = speedSpec(model, workers / gpus);
  const { rate: before, detail } = await bare(share);
  console.log(`${model}, ${workers} worker(s) on ${gpus} x ${detail}, Node ${process.version}`);
  console.log(`  bare, one GPU, before: ${before.toFixed(0)} tokens/s`);
  const measured = await withCluster(workers, async (cluster) => {
    const rates = [];
    for (const targetMs of options["round-ms"].split(",").map(Number)) {
      const { rate, text } = await measure(cluster, spec, targetMs);
      console.log(`  cluster, rounds of ${targetMs} ms: ${rate.toFixed(0)} tokens/s; ${text}`);
      rates.push({ targetMs, rate });
    }
    return rates;
  });
  const { rate: after } = await bare(share);
  console.log(`  bare, one GPU, after: ${after.toFixed(0)} tokens/s`);
  const one = (before + after) / 2;
  for (const { targetMs, rate } of measured) {
    const scaling = gpus > 1 ? `, ${(rate / one).toFixed(2)} times one GPU` : "";
    console.log(
      `  ${model} ${workers} worker(s), rounds of ${targetMs} ms: ${((100 * rate) / one / gpus).toFixed(1)} % of bare${scaling}`,
    );
  }
  if (options.peer) runPeer(model, spec, gpus);
}

/** The same batches by DistributedDataParallel. */
function runPeer(model: string, { batch, tbptt, model: sizes }: JobSpec, gpus: number): void {
  const { layers, dModel, vocab } = sizes;
  const lanes = (batch.lanesPerShard * batch.shards) / gpus;
  const args = Object.entries({ layers, dModel, vocab, lanes, tokens: tbptt.segmentTokens, gpus }).flatMap(([name, value]) => [
    `--${name}`,
    String(value),
  ]);
  const { status } = spawnSync("python3", ["bench/peer-ddp.py", ...args], { stdio: "inherit" });
  if (status !== 0) console.log(`  ${model}: no figure of PyTorch's DistributedDataParallel (exit code ${status})`);
}

try {
  for (const model of options.models.split(",")) {
    for (const workers of options.workers.split(",").map(Number)) await measureModel(model, workers);
  }
  for (const precision of options.passkey.split(",").filter((name) => name !== "")) {
    await withCluster(1, (cluster) => passkey(cluster, precision === "bf16" ? "bf16" : "f32"));
  }
} catch (e) {
  if (!(e instanceof SegueError && e.code === "ENGINE_UNAVAILABLE")) throw e;
  console.error(`nothing measured: ${e.message}`);
  process.exitCode = NO_ENGINE;
}
