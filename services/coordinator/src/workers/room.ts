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
/** Two rounds' snapshots: one that is committed, one that is made. */
const SNAPSHOTS = 2;

/**
 * Refuses a job whose vectors alone are more than any worker that could take it has: nothing would ever start. What else a worker needs
 * depends on its engine, which knows it better: a worker refuses by itself. Workers may still come, so where none is attached every job
 * waits. Pure.
 * @throws SegueError MEMORY_INSUFFICIENT
 */
export function refuseWithoutRoom(spec: JobSpec, workers: readonly Room[]): void {
  const judged = judgedBy(spec, workers);
  if (judged.length === 0 || judged.some(({ lacks }) => lacks.length === 0)) return;
  const { worker, lacks } = judged.reduce((best, one) => (one.worker.memoryBytes > best.worker.memoryBytes ? one : best));
  const { sync } = spec;
  const isShardable = sync.mode === "exact" && sync.wire === "f32" && sync.transport !== "grpc" && spec.train.engine !== "tfjs";
  const sharded: JobSpec = { ...spec, sync: { ...sync, optimizer: "sharded" } };
  const wouldFit = isShardable && judgedBy(sharded, workers).some((one) => one.lacks.length === 0);
  const remedy = wouldFit
    ? `Set sync.optimizer to sharded, with which ${spec.workers.max} workers have room`
    : "Take a smaller model, or attach a worker with more memory first";
  const message =
    `No attached worker has room for the job: its weights, moments, gradient and snapshots alone need ${lacks.join(" and ")} on ` +
    `${worker.name}, the largest of ${judged.length}. ${remedy} (\`segue memory\` shows the parts).`;
  throw new SegueError("MEMORY_INSUFFICIENT", message, { status: "FAILED_PRECONDITION" });
}

/** What each worker that could take the job lacks. */
function judgedBy(spec: JobSpec, workers: readonly Room[]): { readonly worker: Room; readonly lacks: readonly string[] }[] {
  const vectorBytes = FLOAT_BYTES * parameterLayout(spec.model).size;
  const { trained, kept } = vectorsOf(spec);
  const snapshotBytes = SNAPSHOTS * kept * vectorBytes;
  const trainedBytes = trained * vectorBytes;
  return workers.flatMap((worker) => {
    const kind = kindOn(worker, spec.train.engine);
    if (!kind) return [];
    const onGpu = kind.engine === "cuda";
    const lacks = [
      lack("memory", onGpu ? snapshotBytes : snapshotBytes + trainedBytes, worker.memoryBytes),
      onGpu ? lack("GPU memory", trainedBytes, worker.gpuBytes) : undefined,
    ].filter((text) => text !== undefined);
    return [{ worker, lacks }];
  });
}

/** Vectors as long as the parameters, with as many workers as may share the job: in the engine, and in a snapshot. */
function vectorsOf(spec: JobSpec): { readonly trained: number; readonly kept: number } {
  const { max } = spec.workers;
  if (spec.sync.optimizer !== "sharded" || max === 1) return { trained: 4, kept: modelVectors(spec) };
  // Of two moments a slice, and a copy of the next worker's.
  return { trained: 2 + 2 / max, kept: 1 + 4 / max };
}

function lack(what: string, neededBytes: number, hasBytes: number): string | undefined {
  if (neededBytes <= hasBytes) return undefined;
  return `${gibibytes(neededBytes)} of ${what} where there are ${gibibytes(hasBytes)}`;
}

function gibibytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toPrecision(3)} GiB`;
}
