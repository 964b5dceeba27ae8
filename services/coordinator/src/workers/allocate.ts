import type { JobSpec } from "@segue/core";
import { byKind, isSameKind, type Computing, type Kind } from "./kind.js";

const ENGINES_BEST_FIRST = ["cuda", "cpu", "tfjs"] as const;

export interface FreeWorker extends Computing {
  readonly workerId: string;
  /** It was too slow for the job it worked on last. */
  readonly straggler?: boolean | undefined;
}

/** A job's claim on the pool. */
export interface Demand {
  readonly jobId: string;
  /** Workers it has, not counting those that are leaving. */
  readonly has: number;
  readonly min: number;
  readonly max: number;
  /** Members that are too slow: it takes as many more workers in their stead. */
  readonly toReplace?: number | undefined;
  readonly engine: JobSpec["train"]["engine"];
  /** Of the workers it has: it gets no others. */
  readonly kindInUse?: Kind | undefined;
}

export interface Grant {
  readonly jobId: string;
  readonly workerIds: readonly string[];
}

/**
 * Hands free workers to jobs in the order of the demands, up to each job's maximum. A job that cannot reach its minimum gets nothing yet,
 * and later jobs do not overtake it: it would starve. Workers that were too slow elsewhere are taken last, and replace nobody.
 */
export function allocate(free: readonly FreeWorker[], demands: readonly Demand[]): Grant[] {
  let left = [...free.filter(({ straggler }) => !straggler), ...free.filter(({ straggler }) => straggler)];
  const grants: Grant[] = [];
  for (const demand of demands) {
    const wanted = Math.max(0, demand.max - demand.has);
    const toReplace = demand.max > 0 ? (demand.toReplace ?? 0) : 0;
    if (wanted + toReplace <= 0) continue;
    const fitting = suitable(left, demand);
    const replacing = fitting.slice(wanted, wanted + toReplace).filter(({ straggler }) => !straggler);
    const workers = [...fitting.slice(0, wanted), ...replacing];
    if (demand.has + workers.length < demand.min) {
      if (demand.has < demand.min) break;
      continue;
    }
    if (workers.length === 0) continue;
    grants.push({ jobId: demand.jobId, workerIds: workers.map(({ workerId }) => workerId) });
    const taken = new Set(workers);
    left = left.filter((worker) => !taken.has(worker));
  }
  return grants;
}

/**
 * Workers of one kind: that in use; else, of the best engine of which one kind has enough, the kind with the most workers (of equally many
 * the one that comes first).
 */
function suitable(free: readonly FreeWorker[], { has, min, engine, kindInUse }: Demand): readonly FreeWorker[] {
  const groups = byKind(free, engine);
  if (kindInUse !== undefined) return groups.find(({ kind }) => isSameKind(kind, kindInUse))?.workers ?? [];
  for (const best of ENGINES_BEST_FIRST) {
    const enough = groups.filter(({ kind, workers }) => kind.engine === best && has + workers.length >= min);
    const [largest] = enough.sort((a, b) => b.workers.length - a.workers.length);
    if (largest) return largest.workers;
  }
  return [];
}
