import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { decodeSafetensors, laneTokensPerStep, learningRateAt, storedJobSpec, tbpttAt, tensorToFloat32 } from "@segue/core";
import { initialParameters } from "@segue/engine";
import { Tensors, pullTensor } from "@segue/protocol";
import { connectClient } from "@segue/runtime";
import type { Worker } from "../src/worker.js";
import {
  engineCompute,
  join,
  JOB,
  members,
  ScriptedCoordinator,
  startWorker,
  type Generation,
} from "./support/scripted-coordinator.js";

/** What PyTorch made of the same job, in float64; trajectory/README.md tells how. */
interface Trajectory {
  readonly spec: unknown;
  readonly totalWeights: readonly number[];
  readonly losses: readonly number[];
  readonly gradientNorms: readonly number[];
  readonly learningRates: readonly number[];
}

const CASES = ["base", "chains", "full-gradient", "drops", "curriculum", "answer-weights", "untied", "groups", "diloco"];
/** Of the other engine, which is slower, the plain case and that with several groups. */
const TFJS_CASES = ["base", "groups"];
/** Relative; about five times what float32 comes to. */
const TOLERANCE = { loss: 1e-5, gradientNorm: 1e-4, weights: 5e-4 };

function stored(name: string) {
  const path = (ending: string): URL => new URL(`trajectory/${name}.${ending}`, import.meta.url);
  const { spec, ...expected } = JSON.parse(readFileSync(path("json"), "utf8")) as Trajectory;
  const tensors = decodeSafetensors(readFileSync(path("safetensors")));
  const floats = (tensor: string): Float32Array => tensorToFloat32(tensors.get(tensor)!);
  const bytes = (tensor: string): Uint8Array => tensors.get(tensor)!.data;
  return { spec: storedJobSpec(spec), expected, floats, bytes };
}

describe("training beside PyTorch", () => {
  let coordinator: ScriptedCoordinator;
  let workers: Worker[] = [];
  beforeEach(async () => {
    coordinator = await new ScriptedCoordinator().start();
  });
  afterEach(async () => {
    await Promise.all(workers.map((worker) => worker.close()));
    workers = [];
    await coordinator.close();
  });

  const runs = [...CASES.map((name) => [name, "cpu"] as const), ...TFJS_CASES.map((name) => [name, "tfjs"] as const)];
  for (const [name, engine] of runs) {
    it(`gives its losses, gradient norms, learning rates and weights: ${name}, engine ${engine}`, async () => {
      const { spec: ofCpu, expected, floats, bytes } = stored(name);
      const spec = { ...ofCpu, train: { ...ofCpu.train, engine } };
      const { steps } = spec.train;
      assert.deepEqual(initialParameters(spec.model, spec.seed), floats("initial"), "training begins elsewhere than PyTorch's");
      const placed: Generation["placed"] = await Promise.all(
        Array.from({ length: spec.batch.shards }, async (_, shard) => {
          workers.push(await startWorker(coordinator.address, `w${shard}`, engineCompute, engine));
          return [await coordinator.attached(`w${shard}`), [shard]] as const;
        }),
      );
      const generation = { spec, generation: 1, placed };
      assert.equal(members(...placed).length, 2);
      await join(generation);
      let at = 0;
      for (let step = 0; step < steps; step++) {
        const positions = spec.batch.lanesPerShard * laneTokensPerStep(tbpttAt(spec.tbptt, step));
        const learningRate = learningRateAt(step, steps, spec.optimizer, spec.schedule);
        near(learningRate, expected.learningRates[step]!, 1e-14, `learning rate of step ${step}`);
        for (const [stream, [shard = 0]] of placed) {
          const begin = at + shard * positions;
          const part = (tensor: string, size: number): Uint8Array => bytes(tensor).slice(begin * size, (begin + positions) * size);
          const [tokens, labels, weights, resets] = [part("tokens", 4), part("labels", 4), part("weights", 4), part("resets", 1)];
          const shards = [{ shard, tokens, labels, weights, resets }];
          const totalWeight = expected.totalWeights[step]!;
          stream.send({ case: "segments", value: { jobId: JOB, generation: 1, step, totalWeight, learningRate, shards } });
        }
        at += positions * placed.length;
      }
      for (const [stream] of placed) stream.send({ case: "runRound", value: { jobId: JOB, generation: 1, firstStep: 0, steps } });
      const done = await Promise.all(placed.map(([stream]) => stream.next("roundDone")));
      assert.equal(done[0]!.weightsDigest, done[1]!.weightsDigest);
      for (let step = 0; step < steps; step++) {
        const results = done.map((report) => report.results[step]!);
        const lossSum = results.flatMap(({ shardLossSums }) => shardLossSums).reduce((sum, loss) => sum + loss, 0);
        near(lossSum / expected.totalWeights[step]!, expected.losses[step]!, TOLERANCE.loss, `loss of step ${step}`);
        near(results[0]!.gradientNorm, expected.gradientNorms[step]!, TOLERANCE.gradientNorm, `gradient norm of step ${step}`);
      }
      const client = connectClient(Tensors, placed[0]![0].hello.tensorsAddress);
      const { data } = await pullTensor(client, `job/${JOB}/snapshot/${steps}/model`).finally(() => client.close());
      const [initial, final] = [floats("initial"), floats("final")];
      const trained = new Float32Array(data.slice().buffer).subarray(0, final.length);
      const off = distance(trained, final) / distance(initial, final);
      assert.ok(off < TOLERANCE.weights, `the weights are off by ${off} of the way that training took them`);
    });
  }
});

function near(actual: number, right: number, tolerance: number, what: string): void {
  const off = Math.abs(actual - right) / Math.abs(right);
  assert.ok(off <= tolerance, `${what} is ${actual}, PyTorch's ${right}: off by ${off}`);
}

function distance(a: Float32Array, b: Float32Array): number {
  return Math.sqrt(a.reduce((sum, value, index) => sum + (value - b[index]!) ** 2, 0));
}
