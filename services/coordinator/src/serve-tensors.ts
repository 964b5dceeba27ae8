import { stat } from "node:fs/promises";
import { join } from "node:path";
import { tensorsHandlers, type Handlers, type TensorRegistry, type Tensors } from "@segue/protocol";
import { isCheckpointFile, type CheckpointStore } from "./checkpoints/checkpoint-store.js";
import { modelSnapshot } from "./checkpoints/load-checkpoint.js";
import type { JobBook } from "./jobs/job-book.js";

const CHECKPOINT_FILE = /^job\/([a-z0-9-]+)\/checkpoint\/(\d+)\/([a-z.]+)$/;
const SNAPSHOT = /^job\/([a-z0-9-]+)\/snapshot\/(\d+)\/model$/;

/** The Tensors service: lane states of committed steps from memory, files of checkpoints and snapshots made of them from disk. */
export function coordinatorTensors(
  registry: TensorRegistry,
  book: JobBook,
  checkpointsOf: (jobId: string) => CheckpointStore,
): Handlers<typeof Tensors> {
  const jobOf = (jobId: string) => book.jobs.find(({ record }) => record.jobId === jobId);
  return tensorsHandlers(registry, async (ref) => {
    const [, fileJob = "", fileStep, name = ""] = CHECKPOINT_FILE.exec(ref) ?? [];
    if (jobOf(fileJob) && isCheckpointFile(name)) {
      const checkpoints = checkpointsOf(fileJob);
      if (!(await checkpoints.ensureLocal(Number(fileStep)))) return undefined;
      const path = join(checkpoints.folder(Number(fileStep)), name);
      const size = await fileSize(path);
      return size === undefined ? undefined : { dtype: "u8", shape: [size], path };
    }
    const [, jobId = "", step] = SNAPSHOT.exec(ref) ?? [];
    const job = jobOf(jobId);
    if (!job) return undefined;
    const folder = checkpointsOf(jobId).folder(Number(step));
    return (await fileSize(folder)) === undefined ? undefined : modelSnapshot(folder, job.record.spec);
  });
}

async function fileSize(path: string): Promise<number | undefined> {
  return (await stat(path).catch(() => undefined))?.size;
}
