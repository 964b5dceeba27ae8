import assert from "node:assert/strict";
import { optimizerSlice, SLICE_BLOCK_FLOATS, validateJobSpec } from "@segue/core";
import { planEvaluations } from "../src/evaluations/plan.js";
import {
  extendedRun,
  MAX_FAILURES,
  MAX_SAME_FAILURES,
  mostFailures,
  type FailureRun,
  type MemberFailure,
} from "../src/run/failures.js";
import { modelRef, momentsRef } from "../src/run/lane-states.js";
import { slicedModel } from "../src/run/sliced-model.js";
import { membersBySource, momentSources } from "../src/run/sources.js";
import { roundSteps, roundWorkMs, smoothedStepMs } from "../src/run/round-steps.js";
import { isStraggler, updatedPaces, type WorkerPace } from "../src/run/stragglers.js";
import { allocate, type Demand } from "../src/workers/allocate.js";
import { leftAside, shortage, type PoolWorker } from "../src/workers/shortage.js";

const worker = (workerId: string, ...engines: string[]) => ({ workerId, engines });
const gpuWorker = (workerId: string, gpu: string) => ({ workerId, engines: ["cuda", "cpu", "tfjs"], gpu });
const CPU = { engine: "cpu", gpu: "" };
const H100 = { engine: "cuda", gpu: "H100" };
const demand = (jobId: string, more: Partial<Demand> = {}): Demand => ({ jobId, has: 0, min: 1, max: 2, engine: "auto", ...more });

describe("allocation of workers", () => {
  const three = ["a", "b", "c"].map((id) => worker(id, "cpu"));

  it("serves the oldest job first, up to its maximum", () => {
    assert.deepEqual(allocate(three, [demand("old"), demand("young")]), [
      { jobId: "old", workerIds: ["a", "b"] },
      { jobId: "young", workerIds: ["c"] },
    ]);
  });

  it("does not let a younger job overtake one that waits for its minimum", () => {
    assert.deepEqual(allocate(three, [demand("big", { min: 4, max: 4 }), demand("small")]), []);
  });

  it("gives a job workers of one engine only, and those that have the engine it asks for", () => {
    const mixed = [worker("a", "cpu", "tfjs"), worker("b", "cuda", "cpu"), worker("c", "cpu", "tfjs")];
    assert.deepEqual(allocate(mixed, [demand("two", { min: 2 })]), [{ jobId: "two", workerIds: ["a", "c"] }]);
    assert.deepEqual(allocate(mixed, [demand("best")]), [{ jobId: "best", workerIds: ["b"] }]);
    assert.deepEqual(allocate(mixed, [demand("grows", { has: 1, kindInUse: CPU })]), [{ jobId: "grows", workerIds: ["a"] }]);
    assert.deepEqual(allocate(mixed, [demand("asks", { engine: "cpu", max: 3 })]), [{ jobId: "asks", workerIds: ["a", "b", "c"] }]);
  });
});

describe("where members pull the committed step from", () => {
  const members = (...ids: string[]) => ids.map((workerId, index) => ({ workerId, shards: [index] }));
  const there = (): boolean => true;
  const sources = (...of: Parameters<typeof membersBySource>) =>
    Object.fromEntries([...membersBySource(...of)].map(([k, v]) => [k ?? "", v]));

  it("is one holder after the other for those who lack it", () => {
    const ledger = { members: members("a", "b", "x", "y", "z"), holders: ["a", "b"] };
    assert.deepEqual(sources(ledger, there), { a: ["a", "b", "x", "z"], b: ["y"] });
    assert.deepEqual(
      sources(ledger, (id) => id !== "a"),
      { b: ["a", "b", "x", "y", "z"] },
    );
  });

  it("is a few of very many, and none where nobody has it", () => {
    const holders = Array.from({ length: 500 }, (_, i) => `h${i}`);
    const joiners = Array.from({ length: 500 }, (_, i) => `j${i}`);
    assert.equal(Object.keys(sources({ members: members(...holders, ...joiners), holders }, there)).length, 8);
    assert.deepEqual(sources({ members: members("x", "y"), holders: [] }, there), { "": ["x", "y"] });
  });
});

describe("where members pull moments from that lie in slices", () => {
  const parameters = 3 * SLICE_BLOCK_FLOATS + 5;
  const addressOf = (workerId: string): string | undefined => (workerId === "gone" ? undefined : `${workerId}:1`);
  const sources = (slices: readonly (readonly string[])[] | undefined) =>
    momentSources({ slices }, parameters, addressOf, "coordinator:1");

  it("is a holder of each, else a checkpoint that has all of them", () => {
    const half = 2 * SLICE_BLOCK_FLOATS;
    assert.deepEqual(
      sources([
        ["gone", "b"],
        ["b", "gone"],
      ]),
      [
        { begin: 0, end: half, address: "b:1" },
        { begin: half, end: parameters, address: "b:1" },
      ],
    );
    const all = [{ begin: 0, end: parameters, address: "coordinator:1" }];
    assert.deepEqual(sources([["a"], ["gone"]]), all);
    assert.deepEqual(sources([]), all);
    assert.deepEqual(sources(undefined), []);
  });

  it("leaves out members without a slice", () => {
    const names = ["a", "b", "c", "d", "e"];
    const found = sources(names.map((name) => [name]));
    assert.deepEqual(
      found.map(({ end, begin }) => end - begin),
      [...Array<number>(3).fill(SLICE_BLOCK_FLOATS), 5],
    );
  });
});

describe("a snapshot whose moments lie in slices", () => {
  it("reads as one tensor, across slices and vectors, and from whoever is left", async () => {
    const parameters = SLICE_BLOCK_FLOATS + 7;
    const model = Float32Array.from({ length: 3 * parameters }, (_, i) => i);
    const tensors = new Map([[modelRef("j", 4), model.subarray(0, parameters)]]);
    for (const index of [0, 1]) {
      const slice = optimizerSlice(index, 2, parameters);
      const part = (vector: number) => [...model.subarray(vector * parameters + slice.begin, vector * parameters + slice.end)];
      tensors.set(momentsRef("j", 4, slice), Float32Array.from([...part(1), ...part(2)]));
    }
    const asked: string[] = [];
    const slices = [["a", "b"], ["b"]];
    const read = slicedModel("j", 4, parameters, ["a"], slices, (ref, holders, offset, length) => {
      asked.push(holders.join());
      const { buffer, byteOffset } = tensors.get(ref)!;
      return Promise.resolve(new Uint8Array(buffer, byteOffset + offset, length));
    });
    const whole = new Uint8Array(model.buffer);
    for (const [offset, length] of [
      [0, whole.length],
      [4 * parameters - 8, 64],
      [4 * SLICE_BLOCK_FLOATS, 40_000],
    ] as const) {
      assert.deepEqual(await read(offset, length), whole.slice(offset, offset + length));
    }
    assert.deepEqual(new Set(asked), new Set(["a", "a,b", "b"]));
    assert.deepEqual(slices, [["a", "b"], ["b"]]);
  });
});

describe("failures in a row", () => {
  const own = (message: string, code = "ENGINE_FAILED") => ({ code, message, isOwn: true });
  /** What a job may take after these failures, none of which was followed by a commit. */
  const after = (...failures: MemberFailure[]): number => {
    return mostFailures(failures.reduce<FailureRun | undefined>((run, failure, i) => extendedRun(run, failure, i), undefined));
  };

  it("end a job at the third of one kind", () => {
    assert.equal(after(), MAX_FAILURES);
    assert.equal(after(own("offset is out of bounds"), own("offset is out of bounds")), MAX_FAILURES);
    assert.equal(after(...Array<MemberFailure>(3).fill(own("offset is out of bounds"))), MAX_SAME_FAILURES);
    assert.ok(MAX_SAME_FAILURES < MAX_FAILURES);
  });

  it("count anew when another comes between, or a commit", () => {
    assert.equal(after(own("a"), own("a"), own("b"), own("a"), own("a")), MAX_FAILURES);
    assert.equal(after(own("a"), own("a", "MEMORY_INSUFFICIENT"), own("a")), MAX_FAILURES);
    const twice = extendedRun(extendedRun(undefined, own("a"), 0), own("a"), 1);
    assert.equal(twice.times, 2);
    assert.equal(extendedRun(twice, own("a"), 0).times, 1);
  });

  it("are forgiven longer where the network or a peer is the reason", () => {
    const lost = { code: "PEER_UNREACHABLE", message: "pulling x from y", isOwn: false };
    assert.equal(after(lost, lost, lost, lost), MAX_FAILURES);
  });
});

describe("workers of several kinds", () => {
  const pool = [
    gpuWorker("a1", "A100"),
    gpuWorker("h1", "H100"),
    gpuWorker("h2", "H100"),
    gpuWorker("a2", "A100"),
    gpuWorker("h3", "H100"),
    worker("c1", "cpu"),
    worker("c2", "cpu"),
  ];
  const granted = (more: Partial<Demand>): readonly string[] => allocate(pool, [demand("j", more)])[0]?.workerIds ?? [];

  it("never mix GPUs in a job: the kind with the most workers is taken", () => {
    assert.deepEqual(granted({ max: 8 }), ["h1", "h2", "h3"]);
    assert.deepEqual(granted({ max: 2 }), ["h1", "h2"]);
    assert.deepEqual(granted({ min: 4, max: 8 }), []);
  });

  it("keep to the kind that the job has", () => {
    assert.deepEqual(granted({ has: 1, max: 8, kindInUse: { engine: "cuda", gpu: "A100" } }), ["a1", "a2"]);
    assert.deepEqual(granted({ has: 1, max: 8, kindInUse: { engine: "cuda", gpu: "L40" } }), []);
    assert.deepEqual(granted({ has: 1, max: 8, kindInUse: CPU }), ["c1", "c2"]);
  });

  it("leave the slower engine for what the better one has too few equal workers for", () => {
    const few = [gpuWorker("a1", "A100"), gpuWorker("h1", "H100"), worker("c1", "cpu"), worker("c2", "cpu")];
    assert.deepEqual(allocate(few, [demand("j", { min: 2, max: 4 })]), [{ jobId: "j", workerIds: ["c1", "c2"] }]);
  });

  it("are one kind where the job computes on CPUs", () => {
    assert.equal(granted({ engine: "cpu", max: 8 }).length, 7);
  });

  it("serve one job each", () => {
    assert.deepEqual(allocate(pool, [demand("first", { max: 8 }), demand("second", { max: 8 })]), [
      { jobId: "first", workerIds: ["h1", "h2", "h3"] },
      { jobId: "second", workerIds: ["a1", "a2"] },
    ]);
  });
});

describe("replacing stragglers", () => {
  const members = ["a", "b", "c"].map((workerId, index) => ({ workerId, shards: index === 0 ? [0, 1] : [index + 1] }));
  const round = (computeMs: Record<string, number>) => ({
    firstStep: 0,
    steps: 1,
    reports: Object.entries(computeMs).map(([workerId, ms]) => {
      const result = { step: 0, shardLossSums: [], gradientNorm: 1, learningRate: 1, computeMs: ms, exchangeMs: 0 };
      return { workerId, weightsDigest: "x", results: [result] };
    }),
  });

  it("takes three slow rounds in a row, measured by the shard", () => {
    let paces: ReadonlyMap<string, WorkerPace> = new Map();
    const after = (computeMs: Record<string, number>, factor = 2): boolean[] => {
      paces = updatedPaces(paces, members, round(computeMs), factor);
      return members.map(({ workerId }) => isStraggler(paces.get(workerId)));
    };
    const slow = { a: 20, b: 10, c: 25 };
    assert.deepEqual([after(slow), after(slow)].flat(), Array(6).fill(false));
    after({ a: 20, b: 10, c: 15 });
    after(slow);
    after(slow);
    assert.deepEqual(after(slow), [false, false, true]);
    for (let i = 0; i < 4; i++) after(slow, 0);
    assert.deepEqual(after(slow, 0), [false, false, false]);
  });

  it("tells computing, exchange and the rest of a member's steps apart", () => {
    const step = { shardLossSums: [], gradientNorm: 1, learningRate: 1, computeMs: 6, exchangeMs: 3 };
    const report = { workerId: "a", weightsDigest: "x", results: [0, 1].map((index) => ({ ...step, step: index })) };
    const timesAfter = (paces: ReadonlyMap<string, WorkerPace>, elapsedMs: number): Map<string, WorkerPace> =>
      updatedPaces(paces, members.slice(0, 1), { firstStep: 0, steps: 2, reports: [{ ...report, elapsedMs }] }, 2);
    const first = timesAfter(new Map(), 22);
    assert.deepEqual(first.get("a")?.stepTimes, { computeMs: 6, exchangeMs: 3, restMs: 2 });
    assert.deepEqual(timesAfter(first, 17).get("a")?.stepTimes, { computeMs: 6, exchangeMs: 3, restMs: 1 });
  });

  it("gives a full job as many quick workers as it has stragglers, and takes slow ones last elsewhere", () => {
    const free = [{ ...worker("slow", "cpu"), straggler: true }, worker("quick", "cpu")];
    const full = { has: 2, max: 2, kindInUse: CPU };
    assert.deepEqual(allocate(free, [demand("j", { ...full, toReplace: 1 })]), [{ jobId: "j", workerIds: ["quick"] }]);
    assert.deepEqual(allocate(free.slice(0, 1), [demand("j", { ...full, toReplace: 1 })]), []);
    assert.deepEqual(allocate(free, [demand("j", full)]), []);
    assert.deepEqual(allocate(free, [demand("j", { max: 1 }), demand("k")]), [
      { jobId: "j", workerIds: ["quick"] },
      { jobId: "k", workerIds: ["slow"] },
    ]);
  });
});

describe("what a job waits for", () => {
  const pool = (more: Partial<PoolWorker>): PoolWorker => ({
    engines: ["cpu"],
    jobId: undefined,
    draining: false,
    expelled: false,
    ...more,
  });

  it("is said with what the pool has", () => {
    assert.equal(shortage(demand("j", { min: 2 }), []), "waiting for workers: 0 of at least 2; none is attached");
    const workers = [
      pool({}),
      pool({ jobId: "k" }),
      pool({ draining: true }),
      pool({ expelled: true }),
      pool({ engines: ["tfjs"] }),
    ];
    assert.equal(
      shortage(demand("j", { min: 3, has: 1, engine: "cpu" }), [...workers, pool({ jobId: "j" })]),
      "waiting for workers: 1 of at least 3; 1 free, which is too few to start, 1 busy with other jobs, 1 without the engine cpu, 1 leaving, 1 expelled",
    );
  });
});

describe("what a job says of workers of other kinds", () => {
  const at = (gpu: string, more: Partial<PoolWorker> = {}): PoolWorker => ({
    ...{ engines: ["cuda", "cpu"], gpu, jobId: undefined, draining: false, expelled: false },
    ...more,
  });
  const cpu = { engines: ["cpu"], gpu: undefined };

  it("is why it waits, when none of the kinds has enough", () => {
    assert.equal(
      shortage(demand("j", { min: 3 }), [at("H100"), at("H100"), at("A100"), at("", cpu)]),
      "waiting for workers: 0 of at least 3; 4 free (2 with H100, 1 with A100, 1 with cpu), of no kind enough to start",
    );
    assert.equal(
      shortage(demand("j", { has: 1, min: 2, kindInUse: H100 }), [at("H100", { jobId: "j" }), at("A100"), at("", cpu)]),
      "waiting for workers: 1 of at least 2; 1 with A100, while the job's members have H100, 1 without the engine cuda",
    );
  });

  it("is why it trains with fewer than it could", () => {
    const pool = [at("H100", { jobId: "j" }), at("A100"), at("A100", { jobId: "k" }), at("", cpu), at("L40", { draining: true })];
    assert.equal(
      leftAside(demand("j", { has: 1, kindInUse: H100 }), pool),
      "left aside: 1 with A100, 1 with cpu; the job's members have H100, and only equal ones compute the same bits",
    );
    assert.equal(leftAside(demand("j", { has: 2, kindInUse: H100 }), pool), "");
    assert.equal(leftAside(demand("j", { has: 1, kindInUse: H100 }), [at("H100", { jobId: "j" })]), "");
    assert.equal(leftAside(demand("j"), pool), "");
  });
});

describe("round sizing", () => {
  const sizing = {
    step: 0,
    totalSteps: 100,
    targetMs: 2_000,
    maxSteps: 50,
    checkpointEverySteps: 0,
    previousSteps: 50,
    stepMs: 100,
  };

  it("counts the steps of the slowest member, not the end of the round", () => {
    const step = { step: 0, shardLossSums: [], gradientNorm: 1, learningRate: 1 };
    const report = (workerId: string, computeMs: number, exchangeMs: number) => {
      return { workerId, weightsDigest: "", results: [1, 2].map(() => ({ ...step, computeMs, exchangeMs })) };
    };
    assert.equal(roundWorkMs({ reports: [report("a", 10, 30), report("b", 45, 5)] }), 100);
    assert.equal(roundWorkMs({ reports: [] }), 0);
  });

  it("believes in faster steps at once, in slower ones by half", () => {
    assert.equal(smoothedStepMs(undefined, 80, 2), 40);
    assert.equal(smoothedStepMs(8_000, 600, 4), 150);
    assert.equal(smoothedStepMs(150, 1_000, 4), 200);
  });

  it("aims at the target duration", () => assert.equal(roundSteps(sizing), 20));

  it("starts with one step and grows gently", () => {
    assert.equal(roundSteps({ ...sizing, stepMs: undefined, previousSteps: 0 }), 1);
    assert.equal(roundSteps({ ...sizing, previousSteps: 1 }), 4);
  });

  it("stops at checkpoints, at the maximum and at the end", () => {
    assert.equal(roundSteps({ ...sizing, step: 25, checkpointEverySteps: 10 }), 5);
    assert.equal(roundSteps({ ...sizing, stepMs: 1 }), 50);
    assert.equal(roundSteps({ ...sizing, step: 93 }), 7);
    assert.equal(roundSteps({ ...sizing, stepMs: 60_000 }), 1);
  });

  it("ends a round where a stage of the curriculum begins, if members agree there", () => {
    assert.equal(roundSteps({ ...sizing, step: 10, stageEnd: 13 }), 3);
    assert.equal(roundSteps({ ...sizing, step: 8, stageEnd: 13, multipleOf: 8 }), 8);
  });

  it("ends where members agree on weights, or with the training", () => {
    assert.equal(roundSteps({ ...sizing, multipleOf: 8 }), 16);
    assert.equal(roundSteps({ ...sizing, multipleOf: 300, totalSteps: 1000 }), 300);
    assert.equal(roundSteps({ ...sizing, step: 96, multipleOf: 8 }), 4);
  });
});

describe("planning of evaluations", () => {
  const { evaluations } = validateJobSpec({
    model: { layers: 1, dModel: 64 },
    data: { passkey: {} },
    train: { steps: 100 },
    evaluations: [{ name: "each" }, { name: "second", everyCheckpoints: 2 }],
  }).spec;
  const names = (step: number, isLast: boolean, everySteps = 10) =>
    planEvaluations(evaluations, { everySteps, keepLast: 1, keepEvery: 0 }, { step, isLast }).map(({ name }) => name);

  it("runs each evaluation on every n-th regular checkpoint", () => {
    assert.deepEqual(names(10, false), ["each"]);
    assert.deepEqual(names(20, false), ["each", "second"]);
  });

  it("runs all on the last checkpoint and none on one that an interruption caused", () => {
    assert.deepEqual(names(30, true), ["each", "second"]);
    assert.deepEqual(names(13, false), []);
    assert.deepEqual(names(13, false, 0), []);
  });
});
