import { modelVectors, parameterLayout, SegueError, type JobSpec } from "@segue/core";
import { kindOn, type Computing } from "./kind.js";

/** What of a worker decides whether a job has room on it. */
export interface Room extends Computing {
  readonly name: string;
  /** Of its machine or container. */
  readonly memoryBytes: number;
  /** Of its GPU; 0 without one. */
  readonly gpuBytes: number;
}

const FLOAT_BYTES = 4;
/** Weights, gradient and AdamW's two moments. */
const TRAINED_VECTORS = 4;
/** Two rounds' snapshots: one that is committed, one that is made. */
const SNAPSHOTS = 2;

/**
 * Refuses a job whose vectors alone are more than any worker that could take it has: nothing would ever start. What else a worker needs
 * depends on its engine, which knows it better: a worker refuses by itself. Workers may still come, so where none is attached every job
 * waits. Pure.
 * @throws SegueError MEMORY_INSUFFICIENT
 */
export function refuseWithoutRoom(spec: JobSpec, workers: readonly Room[]): void {
  const vectorBytes = FLOAT_BYTES * parameterLayout(spec.model).size;
  const snapshotBytes = SNAPSHOTS * modelVectors(spec) * vectorBytes;
  const trainedBytes = TRAINED_VECTORS * vectorBytes;
  const judged = workers.flatMap((worker) => {
    const kind = kindOn(worker, spec.train.engine);
    if (!kind) return [];
    const onGpu = kind.engine === "cuda";
    const lacks = [
      lack("memory", onGpu ? snapshotBytes : snapshotBytes + trainedBytes, worker.memoryBytes),
      onGpu ? lack("GPU memory", trainedBytes, worker.gpuBytes) : undefined,
    ].filter((text) => text !== undefined);
    return [{ worker, lacks }];
  });
  if (judged.length === 0 || judged.some(({ lacks }) => lacks.length === 0)) return;
  const { worker, lacks } = judged.reduce((best, one) => (one.worker.memoryBytes > best.worker.memoryBytes ? one : best));
  const message =
    `No attached worker has room for the job: its weights, moments, gradient and snapshots alone need ${lacks.join(" and ")} on ` +
    `${worker.name}, the largest of ${judged.length}. Take a smaller model, or attach a worker with more memory first (\`segue memory\` shows the parts).`;
  throw new SegueError("MEMORY_INSUFFICIENT", message, { status: "FAILED_PRECONDITION" });
}

function lack(what: string, neededBytes: number, hasBytes: number): string | undefined {
  if (neededBytes <= hasBytes) return undefined;
  return `${gibibytes(neededBytes)} of ${what} where there are ${gibibytes(hasBytes)}`;
}

function gibibytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toPrecision(3)} GiB`;
}
