import { engineOn, type Demand } from "./allocate.js";

/** A worker of the pool as a job sees it that needs more. */
export interface PoolWorker {
  readonly engines: readonly string[];
  readonly jobId: string | undefined;
  readonly draining: boolean;
  readonly expelled: boolean;
}

/** What a job waits for that has too few workers, in a sentence. Pure. */
export function shortage(demand: Demand, pool: readonly PoolWorker[]): string {
  const { has, min, engine, engineInUse, jobId } = demand;
  const others = pool.filter((worker) => worker.jobId !== jobId);
  const staying = others.filter(({ draining, expelled }) => !draining && !expelled);
  const suits = (worker: PoolWorker): boolean => {
    const own = engineOn(worker, engine);
    return own !== undefined && (engineInUse === undefined || own === engineInUse);
  };
  const free = staying.filter((worker) => worker.jobId === undefined && suits(worker)).length;
  const wanted = engineInUse ?? (engine === "auto" ? undefined : engine);
  const details = [
    count(free, "free, which is too few to start"),
    count(staying.filter((worker) => worker.jobId !== undefined && suits(worker)).length, "busy with other jobs"),
    count(staying.filter((worker) => !suits(worker)).length, `without the engine ${wanted ?? ""}`),
    count(others.filter(({ draining }) => draining).length, "leaving"),
    count(others.filter(({ expelled }) => expelled).length, "expelled"),
  ].filter((detail) => detail !== "");
  const attached = others.length === 0 && has === 0 ? ["none is attached"] : details;
  return `waiting for workers: ${has} of at least ${min}${attached.length > 0 ? `; ${attached.join(", ")}` : ""}`;
}

function count(workers: number, what: string): string {
  return workers === 0 ? "" : `${workers} ${what}`;
}
