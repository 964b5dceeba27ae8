import { laneStateFloats, SegueError, type JobSpec, type LedgerMember } from "@segue/core";
import { pullTensor, type TensorRegistry } from "@segue/protocol";
import type { AttachedWorker } from "../workers/attached-worker.js";

/** How long a worker may take to publish the states of a round it has just reported. */
const STATES_WAIT_MS = 10_000;

/** Pulls at once: enough to fill any network, few enough to let heartbeats in between even where each opens a connection. */
const MAX_PULLS = 64;

export const STATES_PULL_FAILED = "STATES_PULL_FAILED";

export function statesRef(jobId: string, step: number, shard: number): string {
  return `job/${jobId}/snapshot/${step}/states/${shard}`;
}

export function modelRef(jobId: string, step: number): string {
  return `job/${jobId}/snapshot/${step}/model`;
}

/** f32 [2, end - begin]: first and second moments of these floats (sync.optimizer sharded). */
export function momentsRef(jobId: string, step: number, { begin, end }: { readonly begin: number; readonly end: number }): string {
  return `job/${jobId}/snapshot/${step}/moments/${begin}-${end}`;
}

/**
 * Pulls the lane states of every shard at `step` from the members that own them.
 * @returns by shard, each f32 [lanesPerShard, laneStateFloats]
 * @throws SegueError STATES_PULL_FAILED; the field of its violation is the id of the member that did not deliver
 */
export async function pullLaneStates(
  jobId: string,
  spec: JobSpec,
  step: number,
  members: readonly (LedgerMember & { readonly worker: AttachedWorker })[],
  signal: AbortSignal,
): Promise<Uint8Array[]> {
  const states: Uint8Array[] = [];
  const pullFrom = async ({ shards, worker }: (typeof members)[number]): Promise<void> => {
    for (const shard of shards) {
      const into = emptyStates(spec);
      try {
        await pullTensor(worker.tensors, statesRef(jobId, step, shard), { waitMs: STATES_WAIT_MS, signal, into });
      } catch (cause) {
        const description = `cannot pull the states of shard ${shard} at step ${step}: ${cause instanceof Error ? cause.message : String(cause)}`;
        const violations = [{ field: worker.workerId, description }];
        throw new SegueError(STATES_PULL_FAILED, `${worker.workerId}: ${description}`, {
          status: "UNAVAILABLE",
          violations,
          cause,
        });
      }
      states[shard] = into;
    }
  };
  const waiting = members.values();
  const pullers = Array.from({ length: Math.min(MAX_PULLS, members.length) }, async () => {
    for (const member of waiting) await pullFrom(member);
  });
  await Promise.all(pullers);
  return states;
}

/** Lane states of one shard, all zero. */
export function emptyStates(spec: JobSpec): Uint8Array {
  return new Uint8Array(4 * spec.batch.lanesPerShard * laneStateFloats(spec.model));
}

/** The lane states of the committed step, offered to workers that take over shards. They outlive every worker. */
export class LaneStateStore {
  readonly #jobId: string;
  readonly #spec: JobSpec;
  readonly #registry: TensorRegistry;
  #states: readonly Uint8Array[];

  constructor(jobId: string, spec: JobSpec, registry: TensorRegistry) {
    this.#jobId = jobId;
    this.#spec = spec;
    this.#registry = registry;
    this.#states = Array.from({ length: spec.batch.shards }, () => emptyStates(spec));
  }

  /** Of every shard in order; never modified, so a checkpoint may go on reading them. */
  get states(): readonly Uint8Array[] {
    return this.#states;
  }

  commit(step: number, states: readonly Uint8Array[]): void {
    this.clear();
    this.#states = states;
    const shape = [this.#spec.batch.lanesPerShard, laneStateFloats(this.#spec.model)];
    for (const [shard, data] of states.entries()) {
      this.#registry.publish(statesRef(this.#jobId, step, shard), { dtype: "f32", shape, data });
    }
  }

  clear(): void {
    this.#registry.removePrefix(`job/${this.#jobId}/snapshot/`);
  }
}
