import assert from "node:assert/strict";
import {
  apply,
  assignShards,
  createLedger,
  decide,
  isHeldBy,
  type Circumstances,
  type Ledger,
  type LedgerEvent,
} from "@segue/core";

const CALM: Circumstances = { intent: "run", available: ["a", "b"], minWorkers: 1, maxWorkers: 4, maxFailures: 3 };

function after(ledger: Ledger, ...events: LedgerEvent[]): Ledger {
  return events.reduce(apply, ledger);
}

function ready(
  workerIds: readonly string[],
  ledger = createLedger({ shards: 4, totalSteps: 10, step: 0, weightsDigest: "" }),
): Ledger {
  const formed = apply(ledger, { type: "generationFormed", workerIds });
  const { generation, step } = formed;
  return after(formed, ...workerIds.map((workerId) => ({ type: "memberReady", generation, workerId, step }) as const));
}

function reported(ledger: Ledger, workerId: string, weightsDigest: string): LedgerEvent {
  const { generation, round } = ledger;
  assert.ok(round);
  const { firstStep, steps } = round;
  return { type: "roundReported", generation, workerId, firstStep, steps, report: { weightsDigest, results: [] } };
}

describe("ledger", () => {
  it("gives every shard to exactly one worker, in order", () => {
    for (let shards = 1; shards <= 9; shards++) {
      for (let workers = 1; workers <= shards; workers++) {
        const runs = assignShards(shards, workers);
        assert.deepEqual(
          runs.flat(),
          Array.from({ length: shards }, (_, shard) => shard),
        );
        assert.ok(runs.every((run) => run.length > 0));
      }
    }
  });

  it("keeps shards together that belong together", () => {
    assert.deepEqual(assignShards(6, 2, 2), [
      [0, 1],
      [2, 3, 4, 5],
    ]);
    assert.deepEqual(assignShards(6, 3, 2), [
      [0, 1],
      [2, 3],
      [4, 5],
    ]);
  });

  it("commits a round when every member has reported the same digest", () => {
    let ledger = apply(ready(["a", "b"]), { type: "roundStarted", steps: 3 });
    ledger = apply(ledger, reported(ledger, "a", "x"));
    assert.deepEqual(decide(ledger, CALM), { type: "wait" });
    ledger = apply(ledger, reported(ledger, "b", "x"));
    assert.deepEqual(decide(ledger, CALM), { type: "commit" });
    ledger = apply(ledger, { type: "roundCommitted" });
    assert.equal(ledger.step, 3);
    assert.equal(ledger.weightsDigest, "x");
    assert.deepEqual(decide(ledger, CALM), { type: "startRound" });
  });

  it("repeats a round whose members disagree without a majority once, then fails, naming all", () => {
    let ledger = ready(["a", "b"]);
    const disagree = (): Ledger => {
      const running = apply(ledger, { type: "roundStarted", steps: 1 });
      return after(running, reported(running, "a", "x"), reported(running, "b", "y"));
    };
    ledger = disagree();
    const workers = [
      { workerId: "a", weightsDigest: "x" },
      { workerId: "b", weightsDigest: "y" },
    ];
    assert.deepEqual(decide(ledger, CALM), { type: "dispute", workers });
    assert.throws(() => apply(ledger, { type: "roundCommitted" }), /differ/);
    ledger = ready(["a", "b"], apply(ledger, { type: "roundDisputed", workers }));
    ledger = disagree();
    assert.deepEqual(decide(ledger, CALM), { type: "fail", failure: { reason: "digestMismatch", workers } });
  });

  it("expels a member that the others outvote, and forgets what it held", () => {
    let ledger = apply(ready(["a", "b", "c"]), { type: "roundStarted", steps: 1 });
    ledger = after(ledger, reported(ledger, "a", "x"), reported(ledger, "b", "y"), reported(ledger, "c", "x"));
    const workers = [{ workerId: "b", weightsDigest: "y" }];
    assert.deepEqual(decide(ledger, CALM), { type: "expel", workers, weightsDigest: "x" });
    ledger = apply(ledger, { type: "membersExpelled", workers, weightsDigest: "x" });
    assert.deepEqual(ledger.holders, ["a", "c"]);
    assert.equal(ledger.step, 0);
    assert.deepEqual(decide(ledger, { ...CALM, available: ["a", "c"] }), { type: "form", workerIds: ["a", "c"] });
  });

  describe("where each member holds a slice of the moments", () => {
    const sharded = createLedger({ shards: 4, totalSteps: 10, step: 0, weightsDigest: "", sharded: true });
    const gone = (...ids: string[]) => ids.map((workerId) => ({ type: "workerGone", workerId }) as const);
    const committed = (...ids: string[]): Ledger => {
      let ledger = apply(ready(ids, sharded), { type: "roundStarted", steps: 2 });
      ledger = after(ledger, ...ids.map((workerId) => reported(ledger, workerId, "x")));
      return apply(ledger, { type: "roundCommitted" });
    };

    it("knows two holders of each, and goes on as long as one of them is left", () => {
      const ledger = committed("a", "b", "c");
      assert.deepEqual(ledger.slices, [
        ["a", "c"],
        ["b", "a"],
        ["c", "b"],
      ]);
      const without = after(ledger, ...gone("b"));
      assert.deepEqual(without.slices, [["a", "c"], ["a"], ["c"]]);
      assert.deepEqual(decide(without, { ...CALM, available: ["a", "c"] }), { type: "form", workerIds: ["a", "c"] });
      // The slices of a new generation count when all of it are ready, and no sooner.
      const formed = apply(without, { type: "generationFormed", workerIds: ["a", "c"] });
      const one = apply(formed, { type: "memberReady", generation: formed.generation, workerId: "a", step: 2 });
      assert.deepEqual(one.slices, without.slices);
      const both = apply(one, { type: "memberReady", generation: formed.generation, workerId: "c", step: 2 });
      assert.deepEqual(both.slices, [
        ["a", "c"],
        ["c", "a"],
      ]);
      assert.equal(
        isHeldBy(both, (id) => id === "a"),
        true,
      );
    });

    it("goes back to a checkpoint when both holders of a slice are gone", () => {
      const ledger = after(committed("a", "b", "c"), ...gone("b", "c"));
      assert.deepEqual([ledger.holders, isHeldBy(ledger)], [["a"], false]);
      assert.deepEqual(decide(ledger, { ...CALM, available: ["a"] }), { type: "restore" });
      const restored = apply(ledger, { type: "restored", step: 0, weightsDigest: "" });
      assert.deepEqual([restored.slices, restored.holders], [[], []]);
      assert.deepEqual(decide(restored, { ...CALM, available: ["a"] }), { type: "form", workerIds: ["a"] });
    });

    it("is one slice where there is one member", () => assert.deepEqual(committed("a").slices, [["a"]]));
  });

  it("does not commit a round in which the loss or the gradient stopped being a number", () => {
    const results = (lossSum: number, gradientNorm: number) =>
      [1, 2].map((step) => ({
        step,
        shardLossSums: [1, step === 2 ? lossSum : 1],
        gradientNorm,
        learningRate: 1,
        computeMs: 1,
        exchangeMs: 0,
      }));
    const oneStep = ready(["a"]);
    for (const [lossSum, gradientNorm] of [
      [NaN, 1],
      [Infinity, 1],
      [1, NaN],
    ] as const) {
      const begun = apply({ ...oneStep, step: 1 }, { type: "roundStarted", steps: 2 });
      const event = reported(begun, "a", "x");
      assert.ok(event.type === "roundReported");
      const ledger = apply(begun, { ...event, report: { weightsDigest: "x", results: results(lossSum, gradientNorm) } });
      const decision = decide(ledger, CALM);
      assert.ok(decision.type === "fail" && decision.failure.reason === "diverged");
      assert.equal(decision.failure.diverged.step, Number.isNaN(gradientNorm) ? 1 : 2);
    }
  });

  it("voids the round of a lost member and goes on from the survivors at the committed step", () => {
    let ledger = apply(ready(["a", "b"]), { type: "roundStarted", steps: 2 });
    ledger = after(ledger, reported(ledger, "a", "x"), { type: "workerGone", workerId: "b" });
    assert.equal(ledger.step, 0);
    assert.equal(ledger.round, undefined);
    assert.deepEqual(decide(ledger, { ...CALM, available: ["a"] }), { type: "form", workerIds: ["a"] });
  });

  it("ignores messages of older generations", () => {
    const old = apply(ready(["a", "b"]), { type: "roundStarted", steps: 2 });
    const stale = reported(old, "a", "x");
    const ledger = apply(ready(["a"], apply(old, { type: "workerGone", workerId: "b" })), { type: "roundStarted", steps: 2 });
    assert.equal(apply(ledger, stale), ledger);
    assert.equal(apply(ledger, { type: "memberFailed", generation: 1, workerId: "a" }), ledger);
  });

  it("goes back to the checkpoint when nobody holds the committed step any more", () => {
    let ledger = apply(ready(["a"]), { type: "roundStarted", steps: 2 });
    ledger = after(ledger, reported(ledger, "a", "x"), { type: "roundCommitted" }, { type: "workerGone", workerId: "a" });
    assert.deepEqual(decide(ledger, CALM), { type: "restore" });
    ledger = apply(ledger, { type: "restored", step: 0, weightsDigest: "" });
    assert.deepEqual(decide(ledger, CALM), { type: "form", workerIds: ["a", "b"] });
  });

  it("takes newcomers in and lets leavers go at a round boundary only", () => {
    const boundary = ready(["a"]);
    assert.deepEqual(decide(boundary, CALM), { type: "form", workerIds: ["a", "b"] });
    assert.deepEqual(decide(boundary, { ...CALM, maxWorkers: 1 }), { type: "startRound" });
    assert.deepEqual(decide(boundary, { ...CALM, available: [] }), { type: "dissolve" });
    assert.deepEqual(decide(apply(boundary, { type: "roundStarted", steps: 1 }), CALM), { type: "wait" });
  });

  it("gives up after too many failures without a commit", () => {
    let ledger = createLedger({ shards: 4, totalSteps: 10, step: 0, weightsDigest: "" });
    for (let attempt = 0; attempt < 3; attempt++) {
      ledger = ready(["a", "b"], ledger);
      ledger = apply(ledger, { type: "memberFailed", generation: ledger.generation, workerId: "a" });
    }
    assert.equal(decide(ledger, CALM).type, "fail");
  });

  it("settles at the boundary, abandons at once, finishes at the end of training or of the data", () => {
    const running = apply(ready(["a"]), { type: "roundStarted", steps: 10 });
    assert.equal(decide(running, { ...CALM, intent: "settle" }).type, "wait");
    assert.equal(decide(running, { ...CALM, intent: "abandon" }).type, "stop");
    const done = after(running, reported(running, "a", "x"), { type: "roundCommitted" });
    assert.equal(decide(done, CALM).type, "finish");
    assert.equal(decide(apply(ready(["a"]), { type: "dataEnded", step: 0 }), CALM).type, "finish");
  });
});
