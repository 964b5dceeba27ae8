import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { PAGE_FLOATS, type JobSpec } from "@segue/core";
import { Tensors, pullTensor } from "@segue/protocol";
import { connectClient } from "@segue/runtime";
import type { Worker } from "../src/worker.js";
import { Hold, untilComputing } from "./support/hold.js";
import { HELD_TOKEN } from "./support/tokens.js";
import {
  fakeCompute,
  join,
  JOB,
  runRound,
  ScriptedCoordinator,
  sendRound,
  startWorker,
  tinySpec,
  type Attached,
  type Generation,
} from "./support/scripted-coordinator.js";

describe("diloco", () => {
  let coordinator: ScriptedCoordinator;
  let workers: Worker[] = [];
  let hold: Hold;

  beforeEach(async () => {
    hold = new Hold();
    coordinator = await new ScriptedCoordinator().start();
  });
  afterEach(async () => {
    hold.close();
    await Promise.all(workers.map((worker) => worker.close()));
    workers = [];
    await coordinator.close();
  });

  const specWith = (sync: object = {}, wire = "f32"): JobSpec =>
    tinySpec(6, {}, { sync: { mode: "diloco", replicas: 3, innerSteps: 2, wire, ...sync } });

  async function attach(name: string, pageFloats?: number): Promise<Attached> {
    workers.push(await startWorker(coordinator.address, name, fakeCompute, "auto", pageFloats));
    return coordinator.attached(name);
  }

  /** Of weights, moments and outer momentum, which every member holds. */
  async function modelDigest({ placed }: Generation, step: number): Promise<string> {
    const digests = placed.map(async ([stream]) => {
      const client = connectClient(Tensors, stream.hello.tensorsAddress);
      const { data, shape } = await pullTensor(client, `job/${JOB}/snapshot/${step}/model`).finally(() => client.close());
      return `${shape[0]} ${createHash("sha256").update(data).digest("hex")}`;
    });
    const [first, ...others] = await Promise.all(digests);
    for (const other of others) assert.equal(other, first);
    return first!;
  }

  /** Seven steps, the last block short, on fresh workers that hold these shards. */
  async function train(spec: JobSpec, ...shardsOfWorkers: number[][]) {
    return trainInPages(undefined, spec, ...shardsOfWorkers);
  }

  async function trainInPages(pageFloats: number | undefined, spec: JobSpec, ...shardsOfWorkers: number[][]) {
    const streams = await Promise.all(shardsOfWorkers.map((_, index) => attach(`w${workers.length}-${index}`, pageFloats)));
    const generation = { spec, generation: 1, placed: streams.map((stream, index) => [stream, shardsOfWorkers[index]!] as const) };
    await join(generation);
    await runRound(generation, 0, 4);
    const done = await runRound(generation, 4, 3);
    assert.deepEqual(
      done[0]!.results.map(({ step }) => step),
      [4, 5, 6],
    );
    const losses = done.flatMap(({ results }) => results[2]!.shardLossSums);
    assert.equal(losses.length, 6);
    return { digest: await modelDigest(generation, 7), losses, norm: done[0]!.results[2]!.gradientNorm };
  }

  it("gives the same bits whoever holds the replicas", async () => {
    const alone = await train(specWith(), [0, 1, 2, 3, 4, 5]);
    assert.match(alone.digest, /^4 [0-9a-f]{64}$/);
    assert.deepEqual(await train(specWith(), [0, 1, 2, 3], [4, 5]), alone);
    assert.deepEqual(await train(specWith(), [0, 1], [2, 3], [4, 5]), alone);
    assert.deepEqual(await trainInPages(PAGE_FLOATS, specWith(), [0, 1, 2, 3, 4, 5]), alone);
  });

  it("depends on the grouping, the inner steps and the outer step", async () => {
    const all = [0, 1, 2, 3, 4, 5];
    const digests = [];
    for (const sync of [{}, { replicas: 2 }, { innerSteps: 4 }, { outerMomentum: 0.5 }, { outerLearningRate: 0.5 }]) {
      digests.push((await train(specWith(sync), all)).digest);
    }
    assert.equal(new Set(digests).size, digests.length);
  });

  it("equals exact training with one replica, one inner step and an outer step that only takes over", async () => {
    const trivial = { replicas: 1, innerSteps: 1, outerLearningRate: 1, outerMomentum: 0 };
    const diloco = await train(specWith(trivial), [0, 1, 2, 3, 4, 5]);
    const exact = await train(tinySpec(6), [0, 1, 2, 3, 4, 5]);
    for (const [index, loss] of diloco.losses.entries()) assert.ok(Math.abs(loss / exact.losses[index]! - 1) < 1e-4);
  });

  it("runs a withdrawn round again with other members and ends in the same bits", async () => {
    const spec = specWith();
    const undisturbed = await train(spec, [0, 1, 2, 3, 4, 5]);
    const [a, b] = [await attach("a"), await attach("b")];
    const both = { spec, generation: 1, placed: [[a, [0, 1]] as const, [b, [2, 3, 4, 5]] as const] };
    await join(both);
    const [before] = await runRound(both, 0, 4);
    sendRound(both, 4, 3, { mark: { step: 5, token: HELD_TOKEN } });
    for (const stream of [a, b]) await untilComputing(stream, true);
    for (const stream of [a, b]) stream.send({ case: "withdraw", value: { jobId: JOB, generation: 1 } });
    for (const stream of [a, b]) await untilComputing(stream, false);
    hold.release();
    const survivor = { spec, generation: 2, placed: [[a, [0, 1, 2, 3, 4, 5]] as const] };
    // The states of the shards that moved are still at the one that had them.
    const at = { step: 4, weightsDigest: before!.weightsDigest, statesAddress: b.hello.tensorsAddress };
    await join(survivor, at);
    await runRound(survivor, 4, 3);
    assert.equal(await modelDigest(survivor, 7), undisturbed.digest);
  });

  it("refuses a membership that tears a replica apart", async () => {
    const [a, b] = [await attach("a"), await attach("b")];
    const torn = { spec: specWith(), generation: 1, placed: [[a, [0, 1, 2]] as const, [b, [3, 4, 5]] as const] };
    void join(torn).catch(() => undefined);
    assert.equal((await a.next("failure")).code, "JOIN_INVALID");
  });
});
