import { copyFile, link, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { replayEvents, SegueError, type JobSpec } from "@segue/core";
import { ServiceProcess } from "../cluster/service-process.js";
import { followJob } from "../commands/follow-job.js";
import { connect } from "../connection.js";
import type { CliRuntime } from "../runtime.js";
import { checkpointFolder, readStoredJob, type StoredJob } from "./read-store.js";
import type { ReplayRange, ReplaySection } from "./plan.js";

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
 * holds nothing but the checkpoint to start from. Where the job was edited, the steps after it start from a checkpoint of those before it.
 * The store of the job is only read. Documents that are not as they were then end it.
 * @throws SegueError NOT_BUILT, SERVICE_FAILED, REPLAY_FAILED
 */
export async function recompute(options: RecomputeOptions, runtime: CliRuntime): Promise<Recomputed> {
  const dir = await mkdtemp(join(tmpdir(), "segue-replay-"));
  const { job, range } = options;
  const digests = new Map<number, string>();
  let from = { store: options.store, step: range.start };
  let engine = "";
  try {
    for (const section of range.sections) {
      const own = join(dir, String(section.start));
      await mkdir(own);
      engine = await recomputeSection({ ...options, section, from, dir: own }, runtime);
      const store = storeIn(own);
      const { commits } = replayEvents((await readStoredJob(store, job.jobId)).entries);
      for (const { step, weightsDigest } of commits) if (step <= section.end) digests.set(step, weightsDigest);
      from = { store, step: section.end };
    }
    return { digests, engine };
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

interface SectionOptions extends RecomputeOptions {
  readonly section: ReplaySection;
  /** Has the checkpoint that the section starts from. */
  readonly from: { readonly store: string; readonly step: number };
  /** For everything that is written. */
  readonly dir: string;
}

function storeIn(dir: string): string {
  return join(dir, "store");
}

/** @returns the engine in words */
async function recomputeSection(options: SectionOptions, runtime: CliRuntime): Promise<string> {
  const { dir, engine, threads } = options;
  const store = storeIn(dir);
  const services: ServiceProcess[] = [];
  const start = async (kind: "coordinator" | "worker", env: Record<string, string>): Promise<ServiceProcess> => {
    const own = { ...runtime.env, ...PRIVATE_ENV, SEGUE_LISTEN: "127.0.0.1:0", ...env };
    const service = await ServiceProcess.start({ kind, name: kind, logPath: join(dir, `${kind}.log`), env: own });
    services.push(service);
    return service;
  };
  try {
    await prepareStore(store, options);
    const { address } = await start("coordinator", { SEGUE_STORE: store });
    await start("worker", {
      SEGUE_COORDINATOR: address,
      SEGUE_NAME: "replay",
      SEGUE_ENGINE: engine,
      SEGUE_THREADS: String(threads),
    });
    const engineInWords = await trainTo(address, options, runtime);
    await services[0]?.stop(STOP_MS);
    return engineInWords;
  } finally {
    await Promise.all(services.map((service) => service.stop(STOP_MS)));
  }
}

async function prepareStore(store: string, { job, section, range, from: origin }: SectionOptions): Promise<void> {
  const isLast = section.end === range.end;
  const record = {
    ...job.record,
    spec: replayedSpec(section.spec, isLast ? 0 : section.end),
    phase: "WAITING",
    reason: "",
    attempt: 0,
    // Absent: the section begins with the job.
    checkpointStep: origin.step === 0 ? undefined : origin.step,
  };
  await mkdir(join(store, "jobs", job.jobId), { recursive: true });
  await writeFile(join(store, "jobs", job.jobId, "job.json"), JSON.stringify(record));
  if (origin.step === 0) return;
  const from = checkpointFolder(origin.store, job.jobId, origin.step);
  const to = checkpointFolder(store, job.jobId, origin.step);
  await mkdir(to, { recursive: true });
  for (const name of await readdir(from)) {
    // Checkpoints are never modified, so a second name is as good as a copy.
    await link(join(from, name), join(to, name)).catch(() => copyFile(join(from, name), join(to, name)));
  }
}

/** What is learned stays the same, with checkpoints as given; rounds are as short as can be, so that every step has a digest. */
function replayedSpec(spec: JobSpec, everySteps: number): JobSpec {
  return {
    ...spec,
    evaluations: [],
    rounds: { ...spec.rounds, maxSteps: 1 },
    checkpoints: { ...spec.checkpoints, everySteps, keepLast: 10_000 },
    workers: { ...spec.workers, min: 1, max: 1 },
  };
}

/** @returns the engine in words */
async function trainTo(coordinator: string, { job, section, range, onStep }: SectionOptions, runtime: CliRuntime): Promise<string> {
  const connection = connect({ coordinator }, runtime.env);
  try {
    let engine = "";
    for await (const view of followJob(connection.jobs, job.jobId, { signal: runtime.signal })) {
      engine = view.engine || engine;
      onStep(view.step);
      // The next section starts from a checkpoint of this one's end.
      if ((section.end === range.end ? view.step : view.checkpointStep) >= section.end) break;
      if (view.phase === "FAILED" || view.phase === "CANCELLED" || view.phase === "PAUSED") {
        throw new SegueError("REPLAY_FAILED", `Computing again ended at step ${view.step}: ${view.reason}`, { status: "ABORTED" });
      }
    }
    return engine;
  } finally {
    connection.close();
  }
}
