import assert from "node:assert/strict";
import {
  apply,
  createLedger,
  decide,
  ledgerMark,
  recordedChange,
  type EventLogContent,
  type EventLogEntry,
  type Ledger,
  type LedgerEvent,
} from "@segue/core";

export const SHARDS = 5;
export const TOTAL_STEPS = 12;

/** What can happen to a cluster between two messages. `pick` chooses among what there is. */
export type Happening =
  | { readonly type: "deliver" | "duplicate" | "lose" | "kill" | "drain"; readonly pick: number }
  | { readonly type: "attach" | "checkpoint" | "stopAndGoOn" }
  /** The worker's next round comes out wrong, unless it is the only member: then nobody could tell. */
  | { readonly type: "corrupt"; readonly pick: number };

interface SimulatedWorker {
  readonly id: string;
  readonly snapshots: Map<number, string>;
  draining: boolean;
  corrupt: boolean;
}

/** All that a commit moves. */
interface Cut {
  readonly step: number;
  readonly cursor: number;
  readonly rngCounter: number;
  /** By shard. */
  readonly stateVersions: readonly number[];
  readonly weights: string;
}

const start: Cut = { step: 0, cursor: 0, rngCounter: 0, stateVersions: Array<number>(SHARDS).fill(0), weights: weightsAt(0) };

/** The weights after `step` steps of a run that nothing disturbs. */
export function weightsAt(step: number): string {
  return `w${step}`;
}

/** A coordinator's decisions on a ledger, with workers that keep their snapshots and a network that loses, repeats and delays what they say. */
export class LedgerSimulation {
  readonly #workers = new Map<string, SimulatedWorker>();
  readonly #expelled = new Set<string>();
  readonly #roundSteps: number;
  /** One entry an event. */
  readonly log: EventLogEntry[] = [];
  /** As a coordinator writes it. */
  readonly compactLog: EventLogContent[] = [];
  /** Segments committed so far, by shard: numbers of steps. */
  readonly #journal: number[][] = Array.from({ length: SHARDS }, () => []);
  #messages: LedgerEvent[] = [];
  #cut = start;
  #checkpoint = start;
  #names = 0;
  ledger: Ledger = createLedger({ shards: SHARDS, totalSteps: TOTAL_STEPS, step: 0, weightsDigest: "" });
  outcome: "running" | "finished" | "failed" = "running";

  constructor(roundSteps: number) {
    this.#roundSteps = roundSteps;
    this.#record({ kind: "opened", cause: "start", spec: {} as never, ledger: this.ledger });
    this.compactLog.push({ kind: "opened", cause: "start", spec: {} as never, ledger: this.ledger });
  }

  happen(happening: Happening): void {
    if (this.outcome !== "running") return;
    switch (happening.type) {
      case "attach": {
        const id = `w${this.#names++}`;
        this.#workers.set(id, { id, snapshots: new Map(), draining: false, corrupt: false });
        break;
      }
      case "deliver":
      case "duplicate":
      case "lose":
        this.#message(happening.type, happening.pick);
        break;
      case "kill":
        this.#leave(this.#picked(happening.pick));
        break;
      case "drain": {
        const worker = this.#picked(happening.pick);
        if (worker) worker.draining = true;
        break;
      }
      case "corrupt": {
        const worker = this.#picked(happening.pick);
        if (worker) worker.corrupt = true;
        break;
      }
      case "checkpoint":
        if (this.ledger.holders.length > 0) this.#makeDurable();
        break;
      case "stopAndGoOn":
        this.apply({ type: "dissolved" });
        break;
    }
    this.#settle();
  }

  /** Changes the ledger and checks everything that must hold after every event. */
  apply(event: LedgerEvent): void {
    const before = this.ledger;
    this.ledger = apply(before, event);
    this.#record({ kind: "event", event, after: ledgerMark(this.ledger) });
    const { replaces, content } = recordedChange(this.compactLog.slice(-2), event, before, this.ledger);
    if (content) this.compactLog.splice(this.compactLog.length - replaces, replaces, content);
    if (event.type === "roundCommitted") this.#moveCut(before);
    if (event.type === "restored") this.#takeBack();
    this.#check(before);
  }

  #settle(): void {
    for (let turn = 0; turn < 20 && this.outcome === "running"; turn++) {
      const { phase, members } = this.ledger;
      if (phase === "none" || phase === "ready") {
        const isMember = (id: string): boolean => members.some(({ workerId }) => workerId === id);
        for (const worker of [...this.#workers.values()]) if (worker.draining && !isMember(worker.id)) this.#leave(worker);
      }
      const usable = [...this.#workers.values()].filter(({ id, draining }) => !draining && !this.#expelled.has(id));
      const decision = decide(this.ledger, {
        intent: "run",
        available: usable.map(({ id }) => id),
        minWorkers: 1,
        maxWorkers: 4,
        maxFailures: 1_000,
      });
      switch (decision.type) {
        case "wait":
          return;
        case "form":
          this.apply({ type: "generationFormed", workerIds: decision.workerIds });
          for (const workerId of decision.workerIds) this.#join(workerId);
          break;
        case "restore":
          this.apply({ type: "restored", step: this.#checkpoint.step, weightsDigest: this.#checkpoint.weights });
          break;
        case "dissolve":
          this.apply({ type: "dissolved" });
          break;
        case "startRound":
          this.apply({ type: "roundStarted", steps: Math.min(this.#roundSteps, TOTAL_STEPS - this.ledger.step) });
          for (const { workerId } of this.ledger.members) this.#compute(workerId);
          break;
        case "commit":
          this.apply({ type: "roundCommitted" });
          break;
        case "expel":
          for (const { workerId } of decision.workers) this.#expelled.add(workerId);
          this.apply({ type: "membersExpelled", workers: decision.workers, weightsDigest: decision.weightsDigest });
          break;
        case "dispute":
          this.apply({ type: "roundDisputed", workers: decision.workers });
          break;
        case "finish":
          this.outcome = "finished";
          return;
        case "stop":
        case "fail":
          this.outcome = "failed";
          return;
      }
    }
  }

  #join(workerId: string): void {
    const { generation, step } = this.ledger;
    const worker = this.#workers.get(workerId);
    // Its own snapshot of the step, else what a peer or the checkpoint has.
    worker?.snapshots.set(step, worker.snapshots.get(step) ?? this.#cut.weights);
    this.#messages.push({ type: "memberReady", generation, workerId, step });
  }

  #compute(workerId: string): void {
    const { generation, round } = this.ledger;
    const worker = this.#workers.get(workerId);
    if (!worker || !round) return;
    const { firstStep, steps } = round;
    assert.equal(worker.snapshots.get(firstStep), weightsAt(firstStep), "a member starts from the committed weights");
    const spoils = worker.corrupt && this.ledger.members.length > 1;
    const weightsDigest = weightsAt(firstStep + steps) + (spoils ? `, spoilt by ${workerId}` : "");
    worker.corrupt = false;
    for (const step of worker.snapshots.keys()) if (step !== firstStep) worker.snapshots.delete(step);
    worker.snapshots.set(firstStep + steps, weightsDigest);
    this.#messages.push({ type: "roundReported", generation, workerId, firstStep, steps, report: { weightsDigest, results: [] } });
  }

  #message(fate: "deliver" | "duplicate" | "lose", pick: number): void {
    const index = pick % Math.max(1, this.#messages.length);
    const message = this.#messages[index];
    if (!message) return;
    if (fate !== "duplicate") this.#messages = this.#messages.filter((_, at) => at !== index);
    if (fate !== "lose") this.apply(message);
    // A worker whose words get lost is found lost sooner or later, or it says that something went wrong.
    else if ("workerId" in message && "generation" in message) {
      this.apply({ type: "memberFailed", generation: message.generation, workerId: message.workerId });
    }
  }

  #leave(worker: SimulatedWorker | undefined): void {
    if (!worker) return;
    this.#workers.delete(worker.id);
    this.apply({ type: "workerGone", workerId: worker.id });
  }

  #makeDurable(): void {
    this.#checkpoint = this.#cut;
    this.apply({ type: "checkpointWritten", step: this.#cut.step });
  }

  #moveCut({ round }: Ledger): void {
    assert.ok(round);
    for (const { shards } of this.ledger.members) {
      for (const shard of shards) {
        for (let step = round.firstStep; step < round.firstStep + round.steps; step++) this.#journal[shard]?.push(step);
      }
    }
    this.#cut = {
      step: this.#cut.step + round.steps,
      cursor: this.#cut.cursor + round.steps,
      rngCounter: this.#cut.rngCounter + round.steps,
      stateVersions: this.#cut.stateVersions.map((version) => version + round.steps),
      weights: this.ledger.weightsDigest,
    };
  }

  #takeBack(): void {
    this.#cut = this.#checkpoint;
    for (const segments of this.#journal) segments.length = this.#cut.step;
  }

  #check(before: Ledger): void {
    const { step, members, weightsDigest, generation, phase, round, durableStep, totalSteps } = this.ledger;
    const expected = Array.from({ length: step }, (_, segment) => segment);
    for (const segments of this.#journal) assert.deepEqual(segments, expected, "each lane's segments commit once and in order");
    const owners = members.flatMap(({ shards }) => shards);
    assert.deepEqual(
      owners,
      members.length === 0 ? [] : Array.from({ length: SHARDS }, (_, shard) => shard),
      "every shard has one owner, or none has",
    );
    const { cursor, rngCounter, stateVersions, weights } = this.#cut;
    assert.deepEqual([this.#cut.step, cursor, rngCounter, ...stateVersions], Array<number>(3 + SHARDS).fill(step));
    assert.equal(weights, weightsAt(step), "what is committed is what an undisturbed run commits");
    if (step > 0) assert.equal(weightsDigest, weights);
    assert.ok(generation >= before.generation && durableStep <= step && step <= totalSteps);
    assert.equal(phase === "running" || phase === "reported", round !== undefined);
    if (round) assert.equal(round.firstStep, step);
    if (phase === "none") assert.equal(members.length, 0);
  }

  #picked(pick: number): SimulatedWorker | undefined {
    return [...this.#workers.values()][pick % Math.max(1, this.#workers.size)];
  }

  #record(
    content:
      | Omit<Extract<EventLogEntry, { kind: "opened" }>, "seq" | "atMs">
      | Omit<Extract<EventLogEntry, { kind: "event" }>, "seq" | "atMs">,
  ): void {
    this.log.push({ seq: this.log.length + 1, atMs: 0, ...content });
  }
}
