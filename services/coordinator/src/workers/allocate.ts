import type { JobSpec } from "@segue/core";

const ENGINES_BEST_FIRST = ["cuda", "cpu", "tfjs"] as const;

export interface FreeWorker {
  readonly workerId: string;
  /** Engines that load there, best first. */
  readonly engines: readonly string[];
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
  /** Engine of the workers it has; all members compute with the same one, since only then their bits agree. */
  readonly engineInUse?: string | undefined;
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

/** The engine that a job uses on a worker: the one it asks for, or the worker's best. */
export function engineOn(worker: Pick<FreeWorker, "engines">, engine: JobSpec["train"]["engine"]): string | undefined {
  return engine === "auto" ? worker.engines[0] : worker.engines.find((name) => name === engine);
}

/** Workers of one engine: that in use, else the best of which there are enough. */
function suitable(free: readonly FreeWorker[], demand: Demand): FreeWorker[] {
  const byEngine = new Map<string, FreeWorker[]>();
  for (const worker of free) {
    const engine = engineOn(worker, demand.engine);
    if (engine === undefined) continue;
    const group = byEngine.get(engine);
    if (group) group.push(worker);
    else byEngine.set(engine, [worker]);
  }
  if (demand.engineInUse !== undefined) return byEngine.get(demand.engineInUse) ?? [];
  const groups = ENGINES_BEST_FIRST.map((engine) => byEngine.get(engine) ?? []);
  return groups.find((workers) => workers.length > 0 && demand.has + workers.length >= demand.min) ?? [];
}
