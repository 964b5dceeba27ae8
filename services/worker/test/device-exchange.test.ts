import assert from "node:assert/strict";
import { addsWhole, optimizerSlice, parameterLayout, SLICE_BLOCK_FLOATS, type JobSpec } from "@segue/core";
import { pullTensor, TensorRegistry, Tensors, tensorsHandlers } from "@segue/protocol";
import { connectClient, startGrpcServer, type GrpcServer } from "@segue/runtime";
import type { Worker } from "../src/worker.js";
import { untilComputing } from "./support/hold.js";
import {
  engineCompute,
  fakeCompute,
  join,
  JOB,
  logger,
  joinOf,
  runRound,
  ScriptedCoordinator,
  sendRound,
  startWorker,
  tinySpec,
  type Attached,
  type Generation,
} from "./support/scripted-coordinator.js";

/** Workers with the cpu engine, which map each other's memory. */
describe("exchange between the members' engines", () => {
  let coordinator: ScriptedCoordinator;
  let workers: Worker[] = [];
  const workerOf = new Map<Attached, Worker>();
  const servers: GrpcServer[] = [];

  beforeEach(async () => {
    coordinator = await new ScriptedCoordinator().start();
  });
  afterEach(async () => {
    await Promise.all(workers.map((worker) => worker.close()));
    workers = [];
    workerOf.clear();
    await Promise.all(servers.splice(0).map((server) => server.close(200)));
    await coordinator.close();
  });

  async function attach(name: string): Promise<Attached> {
    const worker = await startWorker(coordinator.address, name, engineCompute, "cpu");
    workers.push(worker);
    const stream = await coordinator.attached(name);
    workerOf.set(stream, worker);
    return stream;
  }

  const generationOf = (generation: number, placed: Generation["placed"], spec = tinySpec(5)): Generation => ({
    spec,
    generation,
    placed,
  });

  /** The weights' digest after two rounds. */
  async function train(transport: string, ...shardsOf: (readonly number[])[]): Promise<string> {
    return trainWith(tinySpec(5), transport, ...shardsOf);
  }

  async function trainWith(spec: JobSpec, transport: string, ...shardsOf: (readonly number[])[]): Promise<string> {
    const streams = await Promise.all(shardsOf.map((_, index) => attach(`${transport}${workers.length}-${index}`)));
    const placed = streams.map((stream, index) => [stream, shardsOf[index]!] as const);
    const generation = generationOf(1, placed, spec);
    await join(generation, { transport });
    await runRound(generation, 0, 4);
    const done = await runRound(generation, 4, 2);
    return done[0]!.weightsDigest;
  }

  it("gives the bits of one worker, and those of grpc", async () => {
    const alone = await train("ipc", [0, 1, 2, 3, 4]);
    assert.equal(await train("ipc", [0, 1, 2], [3, 4]), alone);
    assert.equal(await train("ipc", [0, 1], [2], [3, 4]), alone);
    assert.equal(await train("grpc", [0, 1, 2], [3, 4]), alone);
  });

  describe("where each member steps a slice of its own", () => {
    // Seven blocks: slices of two and three members have borders of their own.
    const model = { layers: 2, dModel: 80, dState: 16, headDim: 16, expand: 2, dConv: 4, groups: 1, chunk: 8 };
    const specOf = (optimizer: string) => tinySpec(5, {}, { model, sync: { optimizer } });
    const ALL = [0, 1, 2, 3, 4];
    const shardsOf = [
      [ALL],
      [
        [0, 1, 2],
        [3, 4],
      ],
      [[0], [1, 4], [2, 3]],
    ];
    const at = { transport: "ipc" };

    async function trainSharded(optimizer: string, ...shards: (readonly number[])[]): Promise<string> {
      const streams = await Promise.all(shards.map((_, index) => attach(`${optimizer}${index}of${shards.length}`)));
      const placed = streams.map((stream, index) => [stream, shards[index]!] as const);
      const generation = { spec: specOf(optimizer), generation: 1, placed };
      await join(generation, at);
      await runRound(generation, 0, 3);
      return (await runRound(generation, 3, 3))[0]!.weightsDigest;
    }

    /** Serves the lane states of a step, as the coordinator does. */
    async function statesServer({ placed }: Generation, step: number): Promise<string> {
      const registry = new TensorRegistry();
      for (const [{ hello }, shards] of placed) {
        const client = connectClient(Tensors, hello.tensorsAddress);
        for (const shard of shards) {
          const ref = `job/${JOB}/snapshot/${step}/states/${shard}`;
          const { data } = await pullTensor(client, ref);
          registry.publish(ref, { dtype: "f32", shape: [data.byteLength / 4], data });
        }
        client.close();
      }
      const services = [{ service: Tensors, handlers: tensorsHandlers(registry) }];
      servers.push(await startGrpcServer({ listen: "127.0.0.1:0", services, logger }));
      return servers.at(-1)!.address;
    }

    /** Every slice of the members of `from`, from the holder that is asked for. */
    function sourcesOf(holders: readonly Attached[]) {
      const { size } = parameterLayout(specOf("sharded").model);
      return holders.map(({ hello }, index) => {
        const { begin, end } = optimizerSlice(index, holders.length, size);
        return { begin: BigInt(begin), end: BigInt(end), address: hello.tensorsAddress };
      });
    }

    it("gives the bits of one worker, and those of members who step everything", async () => {
      assert.equal(Math.ceil(parameterLayout(specOf("sharded").model).size / SLICE_BLOCK_FLOATS), 7);
      const alone = await trainSharded("replicated", ALL);
      assert.equal(await trainSharded("replicated", ...shardsOf[1]!), alone);
      for (const shards of shardsOf) assert.equal(await trainSharded("sharded", ...shards), alone, JSON.stringify(shards));
    });

    it("goes on with other members and slices after any one member is gone, to the same bits", async () => {
      const alone = await trainSharded("sharded", ALL);
      for (const gone of [0, 1, 2]) {
        const members = await Promise.all([0, 1, 2].map((index) => attach(`${gone}gone${index}`)));
        const spec = specOf("sharded");
        const first = { spec, generation: 1, placed: members.map((stream, index) => [stream, shardsOf[2]![index]!] as const) };
        await join(first, at);
        const [done] = await runRound(first, 0, 3);
        // Its slice is with the member before it.
        const holders = members.map((stream, index) => (index === gone ? members[(gone + 2) % 3]! : stream));
        const statesAddress = await statesServer(first, 3);
        await workerOf.get(members[gone]!)!.close();
        const left = members.filter((_, index) => index !== gone);
        // One of those that are left, then a newcomer that has nothing.
        const placed = [
          [await attach(`${gone}new`), shardsOf[1]![0]!],
          [left[1]!, shardsOf[1]![1]!],
        ] as const;
        const second = { spec, generation: 2, placed };
        const from = { step: 3, weightsDigest: done!.weightsDigest, weightsAddress: left[0]!.hello.tensorsAddress, statesAddress };
        await join(second, { ...at, ...from, moments: sourcesOf(holders) });
        assert.equal((await runRound(second, 3, 3))[0]!.weightsDigest, alone, `without member ${gone}`);
      }
    });

    it("is refused where gradients travel over gRPC", async () => {
      const placed = [
        [await attach("left"), shardsOf[1]![0]!],
        [await attach("right"), shardsOf[1]![1]!],
      ] as const;
      const generation = { spec: specOf("sharded"), generation: 1, placed };
      for (const [stream] of placed) stream.send({ case: "join", value: { ...joinOf(generation), transport: "grpc" } });
      for (const [stream] of placed) {
        const { code, message } = await stream.next("failure");
        assert.equal(code, "SHARDING_UNAVAILABLE");
        assert.match(message, /set sync.optimizer to replicated/);
      }
    });
  });

  it("rounds to bf16 what grpc rounds: nodes, and sums that are made in slices", async () => {
    const sync = { wire: "bf16" };
    const whole = tinySpec(5, {}, { sync });
    const model = { ...whole.model, dModel: 128, dState: 16, headDim: 32 };
    const sliced = tinySpec(5, {}, { sync, model });
    assert.ok(!addsWhole([1, 1, 2], parameterLayout(sliced.model).size));
    for (const [spec, shardsOf] of [
      [
        whole,
        [
          [0, 1, 2],
          [3, 4],
        ],
      ],
      [sliced, [[0, 1], [2], [3, 4]]],
    ] as const) {
      const digest = await trainWith(spec, "ipc", ...shardsOf);
      assert.equal(digest, await trainWith(spec, "grpc", ...shardsOf));
      assert.notEqual(digest, await trainWith(spec, "ipc", [0, 1, 2, 3, 4]));
    }
  });

  const diloco = (sync: object = {}): JobSpec => tinySpec(6, {}, { sync: { mode: "diloco", replicas: 3, innerSteps: 2, ...sync } });

  it("joins replicas to the bits of one worker, and those of grpc", async () => {
    const alone = await trainWith(diloco(), "ipc", [0, 1, 2, 3, 4, 5]);
    assert.equal(await trainWith(diloco(), "ipc", [0, 1, 2, 3], [4, 5]), alone);
    assert.equal(await trainWith(diloco(), "ipc", [0, 1], [2, 3], [4, 5]), alone);
    assert.equal(await trainWith(diloco(), "grpc", [0, 1, 2, 3], [4, 5]), alone);
  });

  it("rounds what replicas have become as grpc does", async () => {
    const spec = diloco({ wire: "bf16" });
    const digest = await trainWith(spec, "ipc", [0, 1, 2, 3], [4, 5]);
    assert.equal(digest, await trainWith(spec, "grpc", [0, 1, 2, 3], [4, 5]));
    assert.notEqual(digest, await trainWith(spec, "ipc", [0, 1, 2, 3, 4, 5]));
  });

  it("reports a round while it waits for the others in a step of the next", async () => {
    const [left, right] = [await attach("left"), await attach("right")];
    const both = generationOf(1, [
      [left, [0, 1, 2]],
      [right, [3, 4]],
    ]);
    const [first, second] = both.placed.map((member): Generation => ({ ...both, placed: [member] }));
    await join(both, { transport: "ipc" });
    const segmentsOfAll = [0, 1, 2, 3, 4];
    // The other one is promised nothing, so that it comes to step 4 only when the next round is asked for.
    sendRound(first!, 0, 4, { nextSteps: 2, weighed: segmentsOfAll });
    sendRound(second!, 0, 4, { weighed: segmentsOfAll });
    for (const { placed } of [first!, second!]) assert.equal((await placed[0]![0].next("roundDone")).firstStep, 0);
    const [done] = await runRound(both, 4, 2);
    assert.equal(done!.weightsDigest, await train("ipc", segmentsOfAll));
  });

  for (const [mode, spec, moved] of [
    [
      "exact",
      tinySpec(5),
      [
        [0, 1],
        [2, 3, 4],
      ],
    ],
    [
      "diloco",
      diloco(),
      [
        [0, 1],
        [2, 3, 4, 5],
      ],
    ],
  ] as const) {
    it(`is given up when the generation is withdrawn while others are waited for, and the next one ends in the same bits: ${mode}`, async () => {
      const all = Array.from({ length: spec.batch.shards }, (_, shard) => shard);
      const alone = await trainWith(spec, "ipc", all);
      const [left, right] = [await attach("left"), await attach("right")];
      const first = generationOf(
        1,
        [
          [left, all.slice(0, -2)],
          [right, all.slice(-2)],
        ],
        spec,
      );
      await join(first, { transport: "ipc" });
      const [done] = await runRound(first, 0, 4);
      // The other one has nothing to do, so that this one waits.
      sendRound({ ...first, placed: [first.placed[0]!] }, 4, 2);
      await untilComputing(left, true);
      for (const stream of [left, right]) stream.send({ case: "withdraw", value: { jobId: JOB, generation: 1 } });
      const second = generationOf(
        2,
        [
          [right, moved[0]],
          [left, moved[1]],
        ],
        spec,
      );
      const at = { step: 4, weightsDigest: done!.weightsDigest, transport: "ipc" };
      for (const [stream] of second.placed) {
        // Shards that change places bring their states from the one that had them.
        const other = stream === left ? right : left;
        const value = { statesAddress: other.hello.tensorsAddress, ...at };
        stream.send({ case: "join", value: { ...joinOf(second), ...value } });
      }
      await Promise.all([left.next("ready"), right.next("ready")]);
      const [again] = await runRound(second, 4, 2);
      assert.equal(again!.weightsDigest, alone);
    });
  }

  it("is refused by engines that hand their gradients out, with a code after which another transport may do", async () => {
    workers.push(
      await startWorker(coordinator.address, "left", fakeCompute),
      await startWorker(coordinator.address, "right", fakeCompute),
    );
    const placed = [
      [await coordinator.attached("left"), [0, 1, 2]],
      [await coordinator.attached("right"), [3, 4]],
    ] as const;
    for (const [stream] of placed) stream.send({ case: "join", value: { ...joinOf(generationOf(1, placed)), transport: "ipc" } });
    for (const [stream] of placed) assert.equal((await stream.next("failure")).code, "EXCHANGE_UNAVAILABLE");
    await join(generationOf(2, placed), { transport: "grpc" });
  });
});
