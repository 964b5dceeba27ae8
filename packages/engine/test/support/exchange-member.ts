/** One member of an exchange as a process of its own: trains some steps on its shards and tells the digest of what came out. */
import { createHash } from "node:crypto";
import { maximalNodes, optimizerSlice, type ModelSpec } from "@segue/core";
import { probeCuda } from "../../src/cuda/index.js";
import { createEngine, initialParameters } from "../../src/index.js";
import { someResets } from "../devices-support.js";
import { randomTokens } from "../native-support.js";

export interface MemberTask {
  readonly engine: "cpu" | "cuda";
  readonly precision: "f32" | "bf16";
  readonly model: ModelSpec;
  readonly lanes: number;
  readonly tokens: number;
  readonly steps: number;
  /** Steps that are not timed. @default 0 */
  readonly warmUp?: number;
  readonly totalShards: number;
  /** Of every member. */
  readonly shards: readonly (readonly number[])[];
  readonly self: number;
  readonly transport: "ipc" | "nccl";
  readonly wire?: "f32" | "bf16";
  /** Shards are replicas (`sync.mode: diloco`) that take so many steps between outer steps; `steps` is a multiple. */
  readonly innerSteps?: number;
  /** Everybody adds everything. */
  readonly whole: boolean;
  /** Each steps its slice. @default false */
  readonly sharded?: boolean;
  /** This member ends itself with SIGKILL when it has begun so many steps. */
  readonly diesAfter?: number;
  /** What the exchange waits for another member. */
  readonly patienceMs: number;
}

export type MemberMessage =
  | { readonly type: "offer"; readonly offer: string }
  | {
      readonly type: "done";
      readonly digest: string;
      readonly losses: readonly number[];
      readonly exchangeMs: number;
      readonly stepMs: number;
    }
  | { readonly type: "failed"; readonly code: string; readonly message: string };

const tell = (message: MemberMessage): void => void process.send!(message);
const next = <T>(): Promise<T> => new Promise((resolve) => process.once("message", (message) => resolve(message as T)));

async function main(task: MemberTask): Promise<void> {
  const {
    model,
    lanes,
    tokens,
    steps,
    totalShards,
    shards,
    self,
    transport,
    wire,
    whole,
    sharded = false,
    diesAfter,
    patienceMs,
  } = task;
  // GPUs in turn, as far as there are any.
  const gpus = task.engine === "cuda" ? (((await probeCuda()) as { gpu?: { visible: number } }).gpu?.visible ?? 1) : 1;
  const engine = await createEngine(task.engine, { model, precision: task.precision, threads: 1, gpu: self % gpus });
  engine.writeParameters(initialParameters(model, 7));
  const size = engine.layout.size;
  const own = shards[self]!;
  const states = own.map(() => engine.createStates(lanes));
  const vectors = task.innerSteps === undefined ? 1 : 3;
  const slice = (index: number): number => Math.floor((index * vectors * size) / shards.length);
  const members = shards.map((held, index) => ({
    nodes: maximalNodes(held, totalShards),
    begin: whole ? 0 : slice(index),
    end: whole ? vectors * size : slice(index + 1),
    ...(sharded ? optimizerSlice(index, shards.length, size) : {}),
  }));
  const held = sharded ? members[self]! : { begin: 0, end: size };
  engine.holdMoments!(held.begin, held.end);
  const moments = () => [new Float32Array(held.end - held.begin), new Float32Array(held.end - held.begin)] as const;
  engine.writeMoments(...moments(), held.begin);
  const exchange =
    shards.length === 1 && vectors === 1
      ? undefined
      : engine.openExchange!(
          { transport, members, self, sharded, root: { lo: 0, hi: totalShards }, vectors, wire },
          { check: () => undefined, patienceMs },
        );
  tell({ type: "offer", offer: exchange?.offer ?? "" });
  const offers = await next<readonly string[]>();
  const losses: number[] = [];
  const norms: number[] = [];
  let exchangeMs = 0;
  const batchOf = (shard: number, step: number) => ({
    lanes,
    tokens,
    tokens_BT: randomTokens(`tokens ${shard} ${step}`, lanes * tokens, model.vocab),
    labels_BT: randomTokens(`labels ${shard} ${step}`, lanes * tokens, model.vocab),
    resets_BT: Uint8Array.from(someResets(`resets ${shard} ${step}`, lanes * tokens, 50)),
  });
  exchange?.connect(offers);
  const replicas = exchange && vectors > 1 ? engine.openReplicas!(exchange) : undefined;
  const begin = (step: number, held: readonly number[] = own) => {
    if (step === diesAfter) process.kill(process.pid, "SIGKILL");
    const parts = held.map((shard) => ({ batch: batchOf(shard, step), states: states[own.indexOf(shard)]! }));
    const optimizer = { learningRate: 3e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 };
    const adamw = { optimizer, learningRate: 3e-3, step: step + 1, totalWeight: 64 };
    return engine.trainStep!(parts, adamw, undefined, replicas ? undefined : exchange);
  };
  /** Steps of every replica, and the outer step. */
  const block = (firstStep: number, endStep: number): void => {
    for (const [index, replica] of own.entries()) {
      replicas!.begin(index === 0);
      for (let step = firstStep; step < endStep; step++) losses.push(...begin(step, [replica])().lossSums);
      replicas!.end();
    }
    exchangeMs += replicas!.outerStep({ replicas: totalShards, learningRate: 0.7, momentum: 0.9 })();
  };
  const { warmUp = 0 } = task;
  let startedMs = performance.now();
  const { innerSteps = steps } = task;
  if (replicas) for (let step = 0; step < steps; step += innerSteps) block(step, step + innerSteps);
  let waiting = replicas ? undefined : begin(0);
  for (let step = 1; waiting && step <= steps; step++) {
    const after = step < steps ? begin(step) : undefined;
    const result = waiting();
    losses.push(...result.lossSums);
    norms.push(result.gradientNorm);
    if (step > warmUp) exchangeMs += result.exchangeMs;
    if (step === warmUp) startedMs = performance.now();
    if (after) waiting = after;
  }
  const stepMs = (performance.now() - startedMs) / (steps - warmUp);
  const hash = createHash("sha256");
  const weights = new Float32Array(size);
  const [first, second] = moments();
  engine.readParameters(weights);
  engine.readMoments(first, second, held.begin);
  const momentum = new Float32Array(replicas ? size : 0);
  replicas?.readMomentum(momentum, 0);
  hash.update(weights);
  // Nobody has all of them where each steps its slice.
  if (!sharded) for (const vector of [first, second, momentum]) hash.update(vector);
  // Each replica has its own.
  if (!replicas) hash.update(Float64Array.from(norms));
  tell({ type: "done", digest: hash.digest("hex"), losses, exchangeMs: exchangeMs / (steps - warmUp), stepMs });
  // The others may still read this member's memory.
  await next();
  exchange?.close();
  replicas?.close();
  engine.close();
}

const task = await next<MemberTask>();
try {
  await main(task);
} catch (error) {
  const { code = "", message } = error as Error & { code?: string };
  tell({ type: "failed", code, message });
}
process.disconnect();
