import type { Demand } from "./allocate.js";
import { byKind, isSameKind, kindOn, kindText, type Computing } from "./kind.js";

/** A worker of the pool as a job sees it that needs more. */
export interface PoolWorker extends Computing {
  readonly jobId: string | undefined;
  readonly draining: boolean;
  readonly expelled: boolean;
}

/** What a job waits for that has too few workers, in a sentence. Pure. */
export function shortage(demand: Demand, pool: readonly PoolWorker[]): string {
  const { has, min, engine, kindInUse, jobId } = demand;
  const others = pool.filter((worker) => worker.jobId !== jobId);
  const staying = others.filter(({ draining, expelled }) => !draining && !expelled);
  const suits = (worker: PoolWorker): boolean => {
    const own = kindOn(worker, engine);
    return own !== undefined && (kindInUse === undefined || isSameKind(own, kindInUse));
  };
  const engineWanted = kindInUse?.engine ?? (engine === "auto" ? undefined : engine);
  const computes = (worker: PoolWorker): boolean => {
    const own = kindOn(worker, engine);
    return own !== undefined && (kindInUse === undefined || own.engine === kindInUse.engine);
  };
  const free = staying.filter((worker) => worker.jobId === undefined && suits(worker));
  const otherGpus = staying.filter((worker) => computes(worker) && !suits(worker));
  const details = [
    freeText(free, engine),
    count(staying.filter((worker) => worker.jobId !== undefined && suits(worker)).length, "busy with other jobs"),
    otherGpus.length === 0 ? "" : `${kindsText(otherGpus, engine)}, while the job's members have ${kindInUse?.gpu}`,
    count(staying.filter((worker) => !computes(worker)).length, `without the engine ${engineWanted ?? ""}`),
    count(others.filter(({ draining }) => draining).length, "leaving"),
    count(others.filter(({ expelled }) => expelled).length, "expelled"),
  ].filter((detail) => detail !== "");
  const attached = others.length === 0 && has === 0 ? ["none is attached"] : details;
  return `waiting for workers: ${has} of at least ${min}${attached.length > 0 ? `; ${attached.join(", ")}` : ""}`;
}

/**
 * Why a job that could use more workers does not take those that are free: they are of another kind than its members. Empty when there
 * are none. Pure.
 */
export function leftAside({ has, max, engine, kindInUse }: Demand, pool: readonly PoolWorker[]): string {
  if (kindInUse === undefined || has >= max) return "";
  const free = pool.filter((worker) => worker.jobId === undefined && !worker.draining && !worker.expelled);
  const others = free.filter((worker) => {
    const kind = kindOn(worker, engine);
    return kind !== undefined && !isSameKind(kind, kindInUse);
  });
  if (others.length === 0) return "";
  return (
    `left aside: ${kindsText(others, engine)}; the job's members have ${kindText(kindInUse)}, ` +
    "and only equal ones compute the same bits"
  );
}

function freeText(free: readonly PoolWorker[], engine: Demand["engine"]): string {
  if (byKind(free, engine).length < 2) return count(free.length, "free, which is too few to start");
  return `${free.length} free (${kindsText(free, engine)}), of no kind enough to start`;
}

function kindsText(workers: readonly PoolWorker[], engine: Demand["engine"]): string {
  return byKind(workers, engine)
    .map((group) => `${group.workers.length} with ${kindText(group.kind)}`)
    .join(", ");
}

function count(workers: number, what: string): string {
  return workers === 0 ? "" : `${workers} ${what}`;
}
