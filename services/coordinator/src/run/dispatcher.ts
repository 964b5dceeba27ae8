import { setImmediate as turn } from "node:timers/promises";
import { parameterLayout, type JobSpec, type Ledger } from "@segue/core";
import { AttachResponseSchema, broadcastMessage } from "@segue/protocol";
import { jobSpecToProto } from "@segue/runtime";
import type { SegmentFeed } from "../feed/segment-feed.js";
import type { LearningRates } from "./learning-rates.js";
import type { Transport } from "./transport.js";
import type { AttachedWorker, OutgoingMessage } from "../workers/attached-worker.js";
import { membersBySource, momentSources } from "./sources.js";

export interface DispatcherOptions {
  readonly jobId: string;
  readonly spec: JobSpec;
  /** Where this coordinator's Tensors service answers, as workers reach it. */
  readonly address: string;
  readonly workers: ReadonlyMap<string, AttachedWorker>;
}

/** What steps are made of. */
export interface StepWork {
  readonly feed: SegmentFeed;
  readonly rates: LearningRates;
}

/** Speaks to the members of one job: the order of messages that docs/design/cluster-protocol.md describes. */
export class Dispatcher {
  readonly #options: DispatcherOptions;
  #generation = 0;
  /** Segments of the steps before it have been sent to the members of this generation. */
  #sentBefore = 0;
  #sending: Promise<void> = Promise.resolve();

  constructor(options: DispatcherOptions) {
    this.#options = options;
  }

  /** Tells the members of a generation just formed to come to the committed step. */
  join(ledger: Ledger, transport: Transport): void {
    const { jobId, spec, address, workers } = this.#options;
    const members = ledger.members.map(({ workerId, shards }) => ({
      workerId,
      tensorsAddress: workers.get(workerId)?.hello.tensorsAddress ?? "",
      shards: [...shards],
    }));
    this.#generation = ledger.generation;
    this.#sentBefore = ledger.step;
    // At step 0 weights come from the seed and states are zero; later they come from a worker that has them, else from a checkpoint.
    const isStart = ledger.step === 0;
    const parameters = parameterLayout(spec.model).size;
    const moments = momentSources(ledger, parameters, (workerId) => workers.get(workerId)?.hello.tensorsAddress, address);
    for (const [source, pullers] of membersBySource(ledger, (workerId) => workers.has(workerId))) {
      const holder = source === undefined ? undefined : workers.get(source);
      this.#broadcast(pullers, {
        case: "join",
        value: {
          jobId,
          generation: ledger.generation,
          spec: jobSpecToProto(spec),
          step: ledger.step,
          members,
          weightsAddress: isStart ? "" : (holder?.hello.tensorsAddress ?? address),
          statesAddress: isStart ? "" : address,
          weightsDigest: ledger.weightsDigest,
          transport,
          moments: isStart ? [] : moments.map(({ begin, end, address }) => ({ begin: BigInt(begin), end: BigInt(end), address })),
        },
      });
    }
  }

  /** Sends the segments of all steps before `endStep`, as far as the data go, unless another generation is formed meanwhile. */
  sendSegments(ledger: Ledger, work: StepWork, endStep: number): Promise<void> {
    const sending = this.#sending.catch(() => undefined).then(() => this.#sendSegments(ledger, work, endStep));
    this.#sending = sending;
    return sending;
  }

  runRound(ledger: Ledger, snapshot: boolean, nextSteps: number): void {
    const { round, generation } = ledger;
    if (!round) return;
    const value = { jobId: this.#options.jobId, generation, firstStep: round.firstStep, steps: round.steps, snapshot, nextSteps };
    this.#broadcast(idsOf(ledger), { case: "runRound", value });
  }

  /** Makes the generation void for those of its members that are still there. */
  withdraw(ledger: Ledger): void {
    const value = { jobId: this.#options.jobId, generation: ledger.generation };
    this.#broadcast(idsOf(ledger), { case: "withdraw", value });
  }

  #broadcast(workerIds: readonly string[], message: OutgoingMessage): void {
    const encodedOnce = broadcastMessage(AttachResponseSchema, { message });
    for (const workerId of workerIds) this.#options.workers.get(workerId)?.outgoing.push(encodedOnce);
  }

  async #sendSegments({ generation, members }: Ledger, { feed, rates }: StepWork, endStep: number): Promise<void> {
    const { jobId, workers } = this.#options;
    while (this.#generation === generation && this.#sentBefore < endStep) {
      const step = this.#sentBefore;
      const cut = await feed.get(step);
      if (!cut) return;
      const learningRate = await rates.at(step);
      if (this.#generation !== generation) return;
      for (const { workerId, shards } of members) {
        const own = shards.flatMap((shard) => cut.shards[shard] ?? []);
        const value = { jobId, generation, step, totalWeight: cut.totalWeight, shards: own, learningRate };
        workers.get(workerId)?.send({ case: "segments", value });
      }
      this.#sentBefore = step + 1;
      // Cutting may never wait for anything: heartbeats get their turn between two steps.
      await turn();
    }
  }
}

function idsOf({ members }: Ledger): string[] {
  return members.map(({ workerId }) => workerId);
}
