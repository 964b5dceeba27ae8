import { copyFile, link, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { replayEvents, SegueError, type JobSpec } from "@segue/core";
import { ServiceProcess } from "../cluster/service-process.js";
import { followJob } from "../commands/follow-job.js";
import { connect } from "../connection.js";
import type { CliRuntime } from "../runtime.js";
import { checkpointFolder, readStoredJob, type StoredJob } from "./read-store.js";
import type { ReplayRange } from "./plan.js";

export interface RecomputeOptions {
  readonly store: string;
  readonly job: StoredJob;
  readonly range: ReplayRange;
  readonly engine: "auto" | "cuda" | "cpu" | "tfjs";
  /** 0: as many as there are cores. */
  readonly threads: number;
  readonly onStep: (step: number) => void;
}

export interface Recomputed {
  /** Of the weights, by step: of every step where rounds may be that short. */
  readonly digests: ReadonlyMap<number, string>;
  /** In words. */
  readonly engine: string;
}

/** Services of a replay answer nobody else and write nowhere else, whatever the environment says. */
const PRIVATE_ENV = { SEGUE_ADVERTISE: "", SEGUE_METRICS_LISTEN: "", SEGUE_CHECKPOINTS: "", SEGUE_FAULTS: "", REDIS_URL: "" };
const STOP_MS = 10_000;

/**
 * Computes steps of a job again as they were computed first: with a coordinator and one worker of their own, on a temporary store that
 * holds nothing but the checkpoint to start from. The store of the job is only read.
 * @throws SegueError NOT_BUILT, SERVICE_FAILED, REPLAY_FAILED
 */
export async function recompute(options: RecomputeOptions, runtime: CliRuntime): Promise<Recomputed> {
  const dir = await mkdtemp(join(tmpdir(), "segue-replay-"));
  const services: ServiceProcess[] = [];
  const start = async (kind: "coordinator" | "worker", env: Record<string, string>): Promise<ServiceProcess> => {
    const own = { ...runtime.env, ...PRIVATE_ENV, SEGUE_LISTEN: "127.0.0.1:0", ...env };
    const service = await ServiceProcess.start({ kind, name: kind, logPath: join(dir, `${kind}.log`), env: own });
    services.push(service);
    return service;
  };
  try {
    const store = join(dir, "store");
    await prepareStore(store, options);
    const { address } = await start("coordinator", { SEGUE_STORE: store });
    const { engine, threads } = options;
    await start("worker", {
      SEGUE_COORDINATOR: address,
      SEGUE_NAME: "replay",
      SEGUE_ENGINE: engine,
      SEGUE_THREADS: String(threads),
    });
    const engineInWords = await trainTo(address, options, runtime);
    await services[0]?.stop(STOP_MS);
    const { commits } = replayEvents((await readStoredJob(store, options.job.jobId)).entries);
    return { digests: new Map(commits.map(({ step, weightsDigest }) => [step, weightsDigest])), engine: engineInWords };
  } finally {
    await Promise.all(services.map((service) => service.stop(STOP_MS)));
    await rm(dir, { recursive: true, force: true });
  }
}

async function prepareStore(store: string, { store: original, job, range }: RecomputeOptions): Promise<void> {
  const record = { ...job.record, spec: replayedSpec(range.spec), phase: "WAITING", reason: "", attempt: 0 };
  await mkdir(join(store, "jobs", job.jobId), { recursive: true });
  await writeFile(join(store, "jobs", job.jobId, "job.json"), JSON.stringify(record));
  if (range.start === 0) return;
  const from = checkpointFolder(original, job.jobId, range.start);
  const to = checkpointFolder(store, job.jobId, range.start);
  await mkdir(to, { recursive: true });
  for (const name of await readdir(from)) {
    // Checkpoints are never modified, so a second name is as good as a copy.
    await link(join(from, name), join(to, name)).catch(() => copyFile(join(from, name), join(to, name)));
  }
}

/** What is learned stays the same; rounds are as short as can be, so that every step has a digest. */
function replayedSpec(spec: JobSpec): JobSpec {
  return {
    ...spec,
    evaluations: [],
    rounds: { ...spec.rounds, maxSteps: 1 },
    checkpoints: { ...spec.checkpoints, everySteps: 0, keepLast: 10_000 },
    workers: { ...spec.workers, min: 1, max: 1 },
  };
}

/** @returns the engine in words */
async function trainTo(coordinator: string, { job, range, onStep }: RecomputeOptions, runtime: CliRuntime): Promise<string> {
  const connection = connect({ coordinator }, runtime.env);
  try {
    let engine = "";
    for await (const view of followJob(connection.jobs, job.jobId, { signal: runtime.signal })) {
      engine = view.engine || engine;
      onStep(view.step);
      if (view.step >= range.end) break;
      if (view.phase === "FAILED" || view.phase === "CANCELLED") {
        throw new SegueError("REPLAY_FAILED", `Computing again ended at step ${view.step}: ${view.reason}`, { status: "ABORTED" });
      }
    }
    return engine;
  } finally {
    connection.close();
  }
}
