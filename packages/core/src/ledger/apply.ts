import { assignShards } from "./assign-shards.js";
import { judgeDigests } from "./judge-round.js";
import type { Ledger, LedgerEvent } from "./ledger.js";

/**
 * The ledger after an event. Messages of older generations and other strays change nothing: the same object is returned.
 * @throws Error when the caller breaks an order it is responsible for (forming during a round, committing what is not reported)
 */
export function apply(ledger: Ledger, event: LedgerEvent): Ledger {
  switch (event.type) {
    case "generationFormed":
      return form(ledger, event.workerIds);
    case "memberReady": {
      const { workerId } = event;
      if (!isCurrent(ledger, "joining", event) || event.step !== ledger.step || ledger.ready.includes(workerId)) return ledger;
      const ready = [...ledger.ready, workerId];
      const isComplete = ready.length === ledger.members.length;
      return {
        ...ledger,
        ready,
        holders: [...new Set([...ledger.holders, workerId])],
        // Until then those of the generation before count, which the members keep beside their own.
        ...(isComplete ? slicesOfMembers(ledger) : {}),
        phase: isComplete ? "ready" : "joining",
      };
    }
    case "roundStarted": {
      const { steps } = event;
      demand(ledger.phase === "ready", "a round can only start when all members are ready");
      demand(steps >= 1 && ledger.step + steps <= ledger.totalSteps, `${steps} steps from ${ledger.step} leave the training`);
      return { ...ledger, phase: "running", round: { firstStep: ledger.step, steps, reports: [] } };
    }
    case "roundReported":
      return report(ledger, event);
    case "roundCommitted": {
      const { round } = ledger;
      demand(ledger.phase === "reported" && round !== undefined, "only a round that every member has reported can be committed");
      const judgement = judgeDigests(ledger);
      demand(judgement.type === "agreed", "the members' weights differ");
      return {
        ...withoutRound(ledger),
        phase: "ready",
        step: round.firstStep + round.steps,
        weightsDigest: judgement.weightsDigest,
        holders: ledger.members.map(({ workerId }) => workerId),
        ...slicesOfMembers(ledger),
        failures: 0,
        disputes: 0,
      };
    }
    case "workerGone": {
      const left = withoutHolders(ledger, new Set([event.workerId]));
      const isMember = ledger.members.some(({ workerId }) => workerId === event.workerId);
      if (isMember) return dissolve(left);
      return left.holders.length === ledger.holders.length ? ledger : left;
    }
    case "memberFailed":
      if (ledger.phase === "none" || !isMemberOf(ledger, event)) return ledger;
      return { ...dissolve(ledger), failures: ledger.failures + 1 };
    case "membersExpelled": {
      demand(ledger.phase === "reported", "members are expelled for what they report of a round");
      const gone = new Set(event.workers.map(({ workerId }) => workerId));
      return dissolve(withoutHolders(ledger, gone));
    }
    case "roundDisputed":
      demand(ledger.phase === "reported", "only a reported round can be disputed");
      return { ...dissolve(ledger), disputes: ledger.disputes + 1 };
    case "dissolved":
      return dissolve(ledger);
    case "dataEnded":
      return { ...ledger, totalSteps: Math.min(ledger.totalSteps, event.step) };
    case "checkpointWritten":
      return { ...ledger, durableStep: Math.max(ledger.durableStep, event.step) };
    case "restored":
      demand(ledger.phase === "none", "a job goes back to a checkpoint only without members");
      return {
        ...ledger,
        step: event.step,
        durableStep: event.step,
        weightsDigest: event.weightsDigest,
        holders: [],
        ...(ledger.slices ? { slices: [] } : {}),
      };
  }
}

/** Each member holds its slice and a copy of the next one's. */
function slicesOfMembers({ slices, members }: Ledger): Pick<Ledger, "slices"> {
  if (!slices) return {};
  const before = (place: number): string => members[(place + members.length - 1) % members.length]!.workerId;
  return { slices: members.map(({ workerId }, place) => [...new Set([workerId, before(place)])]) };
}

function withoutHolders(ledger: Ledger, gone: ReadonlySet<string>): Ledger {
  const isLeft = (workerId: string): boolean => !gone.has(workerId);
  const slices = ledger.slices?.map((ofSlice) => ofSlice.filter(isLeft));
  return { ...ledger, holders: ledger.holders.filter(isLeft), ...(slices ? { slices } : {}) };
}

function form(ledger: Ledger, workerIds: readonly string[]): Ledger {
  demand(ledger.phase !== "running" && ledger.phase !== "reported", "a generation cannot be formed while a round is in flight");
  demand(new Set(workerIds).size === workerIds.length, "a worker cannot be two members");
  demand(workerIds.length >= 1 && workerIds.length <= ledger.shards, `${workerIds.length} members for ${ledger.shards} shards`);
  const shards = assignShards(ledger.shards, workerIds.length, ledger.shardsPerPlacement);
  return {
    ...withoutRound(ledger),
    generation: ledger.generation + 1,
    phase: "joining",
    members: workerIds.map((workerId, index) => ({ workerId, shards: shards[index] ?? [] })),
    ready: [],
  };
}

function report(ledger: Ledger, event: Extract<LedgerEvent, { type: "roundReported" }>): Ledger {
  const { round } = ledger;
  if (!isCurrent(ledger, "running", event) || round?.firstStep !== event.firstStep || round.steps !== event.steps) return ledger;
  const earlier = round.reports.filter(({ workerId }) => workerId !== event.workerId);
  const reports = [...earlier, { workerId: event.workerId, ...event.report }];
  const isComplete = reports.length === ledger.members.length;
  return { ...ledger, phase: isComplete ? "reported" : "running", round: { ...round, reports } };
}

function dissolve(ledger: Ledger): Ledger {
  return { ...withoutRound(ledger), phase: "none", members: [], ready: [] };
}

function withoutRound(ledger: Ledger): Ledger {
  return { ...ledger, round: undefined };
}

function isCurrent(ledger: Ledger, phase: Ledger["phase"], event: { generation: number; workerId: string }): boolean {
  return ledger.phase === phase && isMemberOf(ledger, event);
}

function isMemberOf(ledger: Ledger, { generation, workerId }: { generation: number; workerId: string }): boolean {
  return ledger.generation === generation && ledger.members.some((member) => member.workerId === workerId);
}

function demand(condition: boolean, otherwise: string): asserts condition {
  if (!condition) throw new Error(`ledger: ${otherwise}`);
}
