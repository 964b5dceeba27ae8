import assert from "node:assert/strict";
import fc from "fast-check";
import { apply, createLedger, recordedChange, replayEvents, type EventLogContent, type LedgerEvent } from "@segue/core";
import { LedgerSimulation, TOTAL_STEPS, weightsAt, type Happening } from "./ledger-simulation.js";

const pick = fc.nat({ max: 20 });
const pickOne = <const T extends "deliver" | "duplicate" | "lose" | "kill" | "drain" | "corrupt">(type: T) =>
  fc.record({ type: fc.constant(type), pick });

const happening: fc.Arbitrary<Happening> = fc.oneof(
  { weight: 12, arbitrary: pickOne("deliver") },
  { weight: 2, arbitrary: pickOne("duplicate") },
  { weight: 1, arbitrary: pickOne("lose") },
  { weight: 1, arbitrary: pickOne("kill") },
  { weight: 1, arbitrary: pickOne("drain") },
  { weight: 3, arbitrary: fc.constant({ type: "attach" } as const) },
  { weight: 1, arbitrary: fc.constant({ type: "checkpoint" } as const) },
  { weight: 1, arbitrary: fc.constant({ type: "stopAndGoOn" } as const) },
);

describe("the ledger, whatever happens", () => {
  it("commits every lane's segments once and in order, with all that belongs to them, and ends as an undisturbed run does", () => {
    let finished = 0;
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 5 }),
        fc.array(happening, { maxLength: 150, size: "max" }),
        (roundSteps, happenings) => {
          const simulation = new LedgerSimulation(roundSteps);
          for (const what of happenings) simulation.happen(what);
          // Then peace: with workers and a network that delivers, training ends.
          simulation.happen({ type: "attach" });
          for (let i = 0; i < 600 && simulation.outcome === "running"; i++) simulation.happen({ type: "deliver", pick: 0 });
          assert.equal(simulation.outcome, "finished");
          assert.equal(simulation.ledger.weightsDigest, weightsAt(TOTAL_STEPS));
          finished++;
        },
      ),
      { numRuns: 300 },
    );
    assert.equal(finished, 300);
  });

  it("never commits weights that a worker spoilt, but expels it, or repeats the round once when nobody knows who is right", () => {
    const seen = new Set<string>();
    fc.assert(
      fc.property(
        fc.array(fc.oneof({ weight: 8, arbitrary: happening }, pickOne("corrupt")), { maxLength: 120, size: "max" }),
        (happenings) => {
          const simulation = new LedgerSimulation(2);
          for (let i = 0; i < 3; i++) simulation.happen({ type: "attach" });
          for (const what of happenings) simulation.happen(what);
          for (const entry of simulation.log) if (entry.kind === "event") seen.add(entry.event.type);
          seen.add(simulation.outcome);
        },
      ),
      { numRuns: 300 },
    );
    for (const type of ["membersExpelled", "roundDisputed", "finished"]) assert.ok(seen.has(type), type);
  });

  it("comes to the same states when its log is replayed", () => {
    fc.assert(
      fc.property(fc.array(happening, { maxLength: 80, size: "max" }), (happenings) => {
        const simulation = new LedgerSimulation(3);
        for (const what of happenings) simulation.happen(what);
        const replay = replayEvents(simulation.log);
        assert.deepEqual(replay.problems, []);
        assert.deepEqual(replay.missing, []);
        assert.equal(replay.events, simulation.log.length - 1);
        for (const { step, weightsDigest } of replay.commits) assert.equal(weightsDigest, weightsAt(step));
        const compact = replayEvents(simulation.compactLog.map((content, index) => ({ seq: index + 1, atMs: 0, ...content })));
        assert.deepEqual([compact.problems, compact.commits], [[], replay.commits]);
        assert.ok(simulation.compactLog.length <= simulation.log.length);
      }),
      { numRuns: 100 },
    );
  });

  it("is recorded with one entry a round, however many members there are", () => {
    const log: EventLogContent[] = [];
    const workerIds = Array.from({ length: 1_000 }, (_, index) => `worker-${index}`);
    let ledger = createLedger({ shards: 1_000, totalSteps: 100, step: 0, weightsDigest: "" });
    const happen = (event: LedgerEvent): void => {
      const before = ledger;
      ledger = apply(before, event);
      const { replaces, content } = recordedChange(log.slice(-2), event, before, ledger);
      if (content) log.splice(log.length - replaces, replaces, content);
    };
    log.push({ kind: "opened", cause: "start", spec: {} as never, ledger });
    happen({ type: "generationFormed", workerIds });
    for (const workerId of workerIds) happen({ type: "memberReady", generation: 1, workerId, step: 0 });
    for (let round = 0; round < 5; round++) {
      happen({ type: "roundStarted", steps: 2 });
      for (const workerId of workerIds.toReversed()) {
        const report = { weightsDigest: `w${round}`, results: [] };
        happen({ type: "roundReported", generation: 1, workerId, firstStep: 2 * round, steps: 2, report });
      }
      happen({ type: "roundCommitted" });
      happen({ type: "memberReady", generation: 0, workerId: "stray", step: 3 });
    }
    assert.deepEqual(
      log.slice(2).map(({ kind }) => kind),
      ["ready", "round", "round", "round", "round", "round"],
    );
    assert.ok(log.slice(2).every((entry) => JSON.stringify(entry).length < 400));
    const replay = replayEvents(log.map((content, index) => ({ seq: index + 1, atMs: 0, ...content })));
    assert.deepEqual(replay.problems, []);
    assert.equal(replay.events, 1 + 1_000 + 5 * 1_002);
    assert.deepEqual(replay.commits.at(-1), { firstStep: 8, step: 10, weightsDigest: "w4", spec: {} });
  });

  it("notices a log that was tampered with", () => {
    const simulation = new LedgerSimulation(3);
    simulation.happen({ type: "attach" });
    for (let i = 0; i < 4; i++) simulation.happen({ type: "deliver", pick: 0 });
    assert.ok(simulation.ledger.step >= 3);
    const tampered = simulation.log.map((entry) =>
      entry.kind === "event" && entry.event.type === "roundStarted" ? { ...entry, event: { ...entry.event, steps: 2 } } : entry,
    );
    assert.notDeepEqual(replayEvents(tampered).problems, []);
  });
});
