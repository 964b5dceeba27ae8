import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { PAGE_FLOATS } from "@segue/core";
import { Tensors, pullTensor } from "@segue/protocol";
import { connectClient } from "@segue/runtime";
import { PATIENCE_MS } from "../../../test/helpers/patience.js";
import type { Worker } from "../src/worker.js";
import { Hold, untilComputing } from "./support/hold.js";
import { BROKEN_TOKEN, CRASH_TOKEN, HELD_TOKEN } from "./support/tokens.js";
import {
  engineCompute,
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

describe("worker", () => {
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

  async function attach(name: string, computeModule = fakeCompute, pageFloats?: number): Promise<Attached> {
    workers.push(await startWorker(coordinator.address, name, computeModule, "auto", pageFloats));
    return coordinator.attached(name);
  }

  async function pull(address: string, ref: string): Promise<Uint8Array> {
    const client = connectClient(Tensors, address);
    try {
      return (await pullTensor(client, ref)).data;
    } finally {
      client.close();
    }
  }

  /** Digest of the model and of every shard's states at a step, pulled from whoever holds them. */
  async function digestAt(generation: Generation, step: number): Promise<string> {
    const hash = createHash("sha256");
    const holders = generation.placed.flatMap(([stream, shards]) => shards.map((shard) => ({ stream, shard })));
    hash.update(await pull(holders[0]!.stream.hello.tensorsAddress, `job/${JOB}/snapshot/${step}/model`));
    for (const { stream, shard } of holders.sort((a, b) => a.shard - b.shard)) {
      hash.update(await pull(stream.hello.tensorsAddress, `job/${JOB}/snapshot/${step}/states/${shard}`));
    }
    return hash.digest("hex");
  }

  /** Six steps in two rounds on freshly attached workers that hold these shards. */
  async function train(
    shardsOfWorkers: readonly (readonly number[])[],
    tbptt: object = {},
    computeModule = fakeCompute,
    pageFloats?: number,
  ) {
    const streams = await Promise.all(
      shardsOfWorkers.map((shards) => attach(`w${workers.length}-${shards.join("-")}`, computeModule, pageFloats)),
    );
    const placed = streams.map((stream, index) => [stream, shardsOfWorkers[index]!] as const);
    const generation = { spec: tinySpec(shardsOfWorkers.flat().length, tbptt), generation: 1, placed };
    await join(generation);
    await runRound(generation, 0, 4);
    const done = await runRound(generation, 4, 2);
    const lossOfShard = new Map<number, number>();
    done.forEach((report, index) =>
      shardsOfWorkers[index]!.forEach((shard, i) => lossOfShard.set(shard, report.results[1]!.shardLossSums[i]!)),
    );
    return {
      digest: await digestAt(generation, 6),
      losses: [...lossOfShard].sort(([a], [b]) => a - b),
      norm: done[0]!.results[1]!.gradientNorm,
    };
  }

  it("gives the same bits on one worker and on two, however the shards are placed", async () => {
    const alone = await train([[0, 1, 2]]);
    assert.deepEqual(await train([[0, 1], [2]]), alone);
    assert.deepEqual(await train([[0], [1, 2]]), alone);
    assert.ok(alone.losses.every(([, loss]) => Number.isFinite(loss) && loss > 0));
  });

  it("gives the same bits however weights and moments are cut into pages", async () => {
    const inOnePage = await train([[0, 1, 2]], {}, fakeCompute, PAGE_FLOATS);
    for (const pageFloats of [11, 1000]) assert.deepEqual(await train([[0, 1], [2]], {}, fakeCompute, pageFloats), inOnePage);
    assert.deepEqual(await train([[0, 1, 2]], {}, engineCompute, PAGE_FLOATS), await train([[0], [1, 2]], {}, engineCompute));
  });

  it("goes through the segments of a step by the spec's rules, the same on one worker and on two", async () => {
    const full = await train([[0, 1, 2]], { segmentsPerStep: 3, gradient: "full" });
    assert.deepEqual(await train([[0], [1, 2]], { segmentsPerStep: 3, gradient: "full" }), full);
    const truncated = await train([[0, 1], [2]], { segmentsPerStep: 3 });
    assert.notEqual(truncated.digest, full.digest);
  });

  it("begins as many steps of the next round as it was promised, and changes nothing by that", async () => {
    const streams = await Promise.all(["early", "too"].map((name) => attach(name)));
    const placed = streams.map((stream, shard) => [stream, [shard]] as const);
    const generation = { spec: tinySpec(2), generation: 1, placed };
    await join(generation);
    await runRound(generation, 0, 2, { nextSteps: 3 });
    const client = connectClient(Tensors, streams[0]!.hello.tensorsAddress);
    const nodeOf = (step: number, waitMs: number) => pullTensor(client, `job/${JOB}/gen/1/step/${step}/node/0-1`, { waitMs });
    try {
      await nodeOf(4, 60_000);
      await assert.rejects(nodeOf(5, 200), /no tensor/);
    } finally {
      client.close();
    }
    await runRound(generation, 2, 4);
    assert.deepEqual(await digestAt(generation, 6), (await train([[0, 1]])).digest);
  });

  it("starts every segment from zero states when the carry is switched off", async () => {
    const carried = await train([[0, 1]]);
    const zeroed = await train([[1], [0]], { carrySsm: false, carryConv: false });
    assert.notEqual(zeroed.digest, carried.digest);
  });

  it("tells who it is, sends heartbeats, and reports every step", async () => {
    const stream = await attach("solo");
    assert.deepEqual(stream.hello.engines, ["tfjs"]);
    assert.equal(stream.hello.device, "fake");
    const generation = { spec: tinySpec(2), generation: 1, placed: [[stream, [0, 1]]] as const };
    const [ready] = await join(generation);
    assert.equal(ready!.engine, "fake");
    assert.ok(ready!.parameters > 0n);
    const [done] = await runRound(generation, 0, 3);
    assert.deepEqual(
      done!.results.map(({ step }) => step),
      [0, 1, 2],
    );
    assert.ok(done!.results.every(({ learningRate, gradientNorm }) => learningRate > 0 && gradientNorm > 0));
    assert.ok((await stream.next("heartbeat")).rssBytes > 0n);
  });

  it("drops a withdrawn round and runs it again from its own snapshot", async () => {
    const stream = await attach("solo");
    const spec = tinySpec(2);
    const placed = [[stream, [0, 1]]] as const;
    const first = { spec, generation: 1, placed };
    await join(first);
    const [before] = await runRound(first, 0, 2);
    sendRound(first, 2, 4, { mark: { step: 4, token: HELD_TOKEN } });
    await untilComputing(stream, true);
    stream.send({ case: "withdraw", value: { jobId: JOB, generation: 1 } });
    await untilComputing(stream, false);
    hold.release();
    const again = { spec, generation: 2, placed };
    await join(again, { step: 2, weightsDigest: before!.weightsDigest });
    const [done] = await runRound(again, 2, 4);
    assert.equal(done!.generation, 2);
    assert.equal(stream.holds("roundDone"), false, "the withdrawn round is not reported");

    const undisturbed = await attach("undisturbed");
    const reference = { spec, generation: 1, placed: [[undisturbed, [0, 1]]] as const };
    await join(reference);
    await runRound(reference, 0, 2);
    await runRound(reference, 2, 4);
    assert.equal(await digestAt(again, 6), await digestAt(reference, 6));
  });

  it("ignores messages of older generations", async () => {
    const stream = await attach("solo");
    const placed = [[stream, [0, 1]]] as const;
    const current = { spec: tinySpec(2), generation: 5, placed };
    await join(current);
    sendRound({ ...current, generation: 4 }, 0, 2);
    stream.send({ case: "withdraw", value: { jobId: JOB, generation: 4 } });
    const [done] = await runRound(current, 0, 2);
    assert.equal(done!.generation, 5);
  });

  it("brings a newcomer to the step by pulling from a peer", async () => {
    const veteran = await attach("veteran");
    const spec = tinySpec(3);
    const alone = { spec, generation: 1, placed: [[veteran, [0, 1, 2]]] as const };
    await join(alone);
    const [done] = await runRound(alone, 0, 2);
    const newcomer = await attach("newcomer");
    const both = { spec, generation: 2, placed: [[veteran, [0, 1]] as const, [newcomer, [2]] as const] };
    const address = veteran.hello.tensorsAddress;
    await join(both, { step: 2, weightsAddress: address, statesAddress: address, weightsDigest: done!.weightsDigest });
    await runRound(both, 2, 4);
    const grown = await digestAt(both, 6);

    const reference = await attach("reference");
    const undisturbed = { spec, generation: 1, placed: [[reference, [0, 1, 2]]] as const };
    await join(undisturbed);
    await runRound(undisturbed, 0, 2);
    await runRound(undisturbed, 2, 4);
    assert.equal(grown, await digestAt(undisturbed, 6));
  });

  it("takes weights by the digest that a checkpoint of the first kind has of them", async () => {
    const veteran = await attach("veteran");
    const spec = tinySpec(1);
    const alone = { spec, generation: 1, placed: [[veteran, [0]]] as const };
    await join(alone);
    const [done] = await runRound(alone, 0, 2);
    const address = veteran.hello.tensorsAddress;
    const model = await pull(address, `job/${JOB}/snapshot/2/model`);
    const weightsDigest = createHash("sha256")
      .update(model.subarray(0, model.byteLength / 3))
      .digest("hex");
    assert.notEqual(weightsDigest, done!.weightsDigest);
    const newcomer = await attach("newcomer");
    const generation = { spec, generation: 2, placed: [[newcomer, [0]]] as const };
    await join(generation, { step: 2, weightsAddress: address, statesAddress: address, weightsDigest });
    // Once more, from its own snapshot: the address is that of nobody.
    await join(
      { ...generation, generation: 3 },
      { step: 2, weightsAddress: "127.0.0.1:1", statesAddress: "127.0.0.1:1", weightsDigest },
    );
  });

  it("refuses weights that do not have the digest they should have", async () => {
    const stream = await attach("solo");
    const generation = { spec: tinySpec(1), generation: 1, placed: [[stream, [0]]] as const };
    const joined = join(generation, { weightsDigest: "0".repeat(64) });
    joined.catch(() => undefined);
    const failure = await stream.next("failure");
    assert.equal(failure.code, "DIGEST_MISMATCH");
  });

  it("names the peer that was lost and goes on with the next generation", async () => {
    const survivor = await attach("survivor");
    const victim = await attach("victim");
    const spec = tinySpec(2);
    const both = { spec, generation: 1, placed: [[survivor, [0]] as const, [victim, [1]] as const] };
    await join(both);
    const [before] = await runRound(both, 0, 2);
    await workers.pop()!.close();
    sendRound({ ...both, placed: [[survivor, [0]]] }, 2, 2);
    const failure = await survivor.next("failure");
    assert.equal(failure.code, "PEER_UNREACHABLE");
    assert.equal(failure.peerWorkerId, victim.workerId);
    const alone = { spec, generation: 2, placed: [[survivor, [0]] as const] };
    const oneShard = { ...alone, spec: tinySpec(1) };
    await join(oneShard, { step: 2, weightsDigest: before!.weightsDigest });
    await runRound(oneShard, 2, 2);
  });

  it("reports an engine's error by its code and can be joined again", async () => {
    const stream = await attach("solo");
    const first = { spec: tinySpec(2), generation: 1, placed: [[stream, [0, 1]]] as const };
    await join(first);
    sendRound(first, 0, 3, { mark: { step: 1, token: BROKEN_TOKEN } });
    const failure = await stream.next("failure");
    assert.equal(failure.code, "ENGINE_OUT_OF_MEMORY");
    assert.equal(failure.generation, 1);
    const second = { ...first, generation: 2 };
    await join(second);
    await runRound(second, 0, 3);
  });

  it("survives the end of its compute thread and restores its own snapshot in a new one", async () => {
    const stream = await attach("solo");
    const first = { spec: tinySpec(2), generation: 1, placed: [[stream, [0, 1]]] as const };
    await join(first);
    const [before] = await runRound(first, 0, 2);
    sendRound(first, 2, 2, { mark: { step: 3, token: CRASH_TOKEN } });
    assert.equal((await stream.next("failure")).code, "ENGINE_CRASHED");
    const second = { ...first, generation: 2 };
    await join(second, { step: 2, weightsDigest: before!.weightsDigest });
    await runRound(second, 2, 2);
  });

  it("reports a round for which it has no segments", async () => {
    const stream = await attach("solo");
    const generation = { spec: tinySpec(1), generation: 1, placed: [[stream, [0]]] as const };
    await join(generation);
    stream.send({ case: "runRound", value: { jobId: JOB, generation: 1, firstStep: 0, steps: 2 } });
    assert.equal((await stream.next("failure")).code, "SEGMENTS_MISSING");
  });

  it("finishes its round and leaves when released while draining", async () => {
    const stream = await attach("solo");
    const generation = { spec: tinySpec(1), generation: 1, placed: [[stream, [0]]] as const };
    await join(generation);
    sendRound(generation, 0, 3, { mark: { step: 1, token: HELD_TOKEN } });
    const drained = workers[0]!.drain("SIGTERM", PATIENCE_MS);
    assert.equal((await stream.next("draining")).reason, "SIGTERM");
    hold.release();
    await stream.next("roundDone");
    stream.send({ case: "release", value: { jobId: JOB } });
    await drained;
    await workers[0]!.close();
    await stream.untilEnded();
  });

  it("attaches again after the coordinator was away, and keeps its snapshots", async () => {
    const stream = await attach("solo");
    const { address } = coordinator;
    const generation = { spec: tinySpec(1), generation: 3, placed: [[stream, [0]]] as const };
    await join(generation);
    const [done] = await runRound(generation, 0, 2);
    await coordinator.close();
    coordinator = await new ScriptedCoordinator().start(address);
    const again = await coordinator.attached("solo");
    const next = { ...generation, generation: 1, placed: [[again, [0]]] as const };
    await join(next, { step: 2, weightsDigest: done!.weightsDigest });
    await runRound(next, 2, 2);
  });
});

describe("worker with the tfjs engine", () => {
  it("gives the same bits on one worker and on two", async () => {
    const digests = [];
    for (const shardsOfWorkers of [[[0, 1]], [[0], [1]]]) {
      const coordinator = await new ScriptedCoordinator().start();
      const started = await Promise.all(
        shardsOfWorkers.map((_, i) => startWorker(coordinator.address, `w${i}`, engineCompute, "tfjs")),
      );
      const placed = await Promise.all(
        shardsOfWorkers.map(async (shards, i) => [await coordinator.attached(`w${i}`), shards] as const),
      );
      const generation = { spec: tinySpec(2), generation: 1, placed };
      const [ready] = await join(generation);
      assert.match(ready!.engine, /tfjs/);
      const [done] = await runRound(generation, 0, 2);
      digests.push(done!.weightsDigest);
      await Promise.all(started.map((worker) => worker.close()));
      await coordinator.close();
    }
    assert.equal(digests[0], digests[1]);
  });
});
