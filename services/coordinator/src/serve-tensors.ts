import { stat } from "node:fs/promises";
import { join } from "node:path";
import { LIMITS } from "@segue/core";
import { tensorsHandlers, type Handlers, type TensorRegistry, type Tensors } from "@segue/protocol";
import { isCheckpointFile, type CheckpointStore } from "./checkpoints/checkpoint-store.js";
import { modelSnapshot, momentsSnapshot } from "./checkpoints/load-checkpoint.js";
import type { DataSource } from "./feed/step-cutter.js";
import type { JobBook } from "./jobs/job-book.js";

const CHECKPOINT_FILE = /^job\/([a-z0-9-]+)\/checkpoint\/(\d+)\/([a-z.]+)$/;
const CORPUS = /^job\/([a-z0-9-]+)\/corpus\/(\d{1,10})\/(\d{1,10})\/(\d{1,10})$/;
const SNAPSHOT = /^job\/([a-z0-9-]+)\/snapshot\/(\d+)\/(model|moments\/0-(\d+))$/;

/**
 * The Tensors service: lane states of committed steps from memory, files of checkpoints and snapshots made of them from disk, prompts of a job's
 * documents read when they are asked for.
 */
export function coordinatorTensors(
  registry: TensorRegistry,
  book: JobBook,
  checkpointsOf: (jobId: string) => CheckpointStore,
  data: DataSource,
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
    const [, corpusJob = "", seed, index, tokens] = CORPUS.exec(ref) ?? [];
    const reader = jobOf(corpusJob);
    if (reader && data.corpusText) {
      if (Number(tokens) > LIMITS.corpusTokens) return undefined;
      const text = { seed: Number(seed), index: Number(index), tokens: Number(tokens) };
      const text_T = await data.corpusText(reader.record.spec, text, reader.record.dataFingerprint);
      return { dtype: "i32", shape: [text_T.length], data: new Uint8Array(text_T.buffer) };
    }
    const [, jobId = "", step, what, floats] = SNAPSHOT.exec(ref) ?? [];
    const job = jobOf(jobId);
    if (!job) return undefined;
    const folder = checkpointsOf(jobId).folder(Number(step));
    if ((await fileSize(folder)) === undefined) return undefined;
    if (what === "model") return modelSnapshot(folder, job.record.spec);
    const moments = momentsSnapshot(folder, job.record.spec);
    return moments.shape[1] === Number(floats) ? moments : undefined;
  });
}

async function fileSize(path: string): Promise<number | undefined> {
  return (await stat(path).catch(() => undefined))?.size;
}
