import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { JobSpec } from "@segue/core";
import { startLocalCluster, type LocalCluster, type LocalClusterOptions } from "../cluster/local-cluster.js";
import type { CliRuntime } from "../runtime.js";
import type { JobView } from "../show/job-view.js";
import { plannedKill } from "./kill-plan.js";
import { RecoveryWatch, type Death } from "./recovery.js";
import { runJob, type FinishedJob } from "./run-job.js";

export interface ChaosOptions {
  readonly spec: JobSpec;
  readonly workers: number;
  readonly engine: NonNullable<LocalClusterOptions["engine"]>;
  readonly seed: number;
  /** Mean time between deaths. */
  readonly everyMs: number;
  /** Whether the coordinator may die, too. */
  readonly killCoordinator: boolean;
  /** How the job ends undisturbed; absent: it is trained undisturbed first. */
  readonly undisturbed?: Pick<FinishedJob, "step" | "digest"> | undefined;
  /** Delays everything between the disturbed workers, as a network between sites would. @default 0 */
  readonly linkDelayMs?: number | undefined;
  /** Progress, in sentences. */
  readonly onNote: (text: string) => void;
  readonly onChange?: ((job: JobView) => void) | undefined;
  /** The disturbed cluster runs; called once, for whoever wants to look at its processes. */
  readonly onCluster?: ((cluster: LocalCluster) => void) | undefined;
  /** Called when a run has ended and its cluster, with its metrics, still runs. */
  readonly onFinished?:
    ((run: "undisturbed" | "disturbed", cluster: LocalCluster, finished: FinishedJob) => Promise<void>) | undefined;
}

type Ending = Pick<FinishedJob, "step" | "digest">;

export interface ChaosResult {
  readonly undisturbed: Ending;
  readonly disturbed: Ending & Pick<FinishedJob, "seconds">;
  readonly deaths: readonly Death[];
  /** Whether both runs ended in the same weights, optimizer, lane states and cursors. */
  readonly equal: boolean;
}

/**
 * Trains a job on a cluster of its own while services die by SIGKILL at random and come back, and compares how it ends.
 * @throws SegueError CHAOS_JOB_FAILED, and what startLocalCluster throws
 */
export async function runChaos(options: ChaosOptions, runtime: Pick<CliRuntime, "env" | "signal">): Promise<ChaosResult> {
  const undisturbed = options.undisturbed ?? (await trainUndisturbed(options, runtime));
  const faultyLinks = (options.linkDelayMs ?? 0) > 0;
  const { finished, deaths } = await onCluster({ ...options, faultyLinks }, (cluster) => disturb(cluster, options, runtime));
  const { step, digest, seconds } = finished;
  const equal = step === undisturbed.step && digest === undisturbed.digest;
  return { undisturbed, disturbed: { step, digest, seconds }, deaths, equal };
}

async function trainUndisturbed(options: ChaosOptions, runtime: Pick<CliRuntime, "env" | "signal">): Promise<Ending> {
  const { spec, onNote } = options;
  onNote("training undisturbed");
  return onCluster(options, async (cluster) => {
    const finished = await runJob(cluster, spec, runtime, (job) => options.onChange?.(job));
    await options.onFinished?.("undisturbed", cluster, finished);
    const { step, digest } = finished;
    onNote(`undisturbed: step ${step}, ${digest}`);
    return { step, digest };
  });
}

async function disturb(
  cluster: LocalCluster,
  options: ChaosOptions,
  runtime: Pick<CliRuntime, "env" | "signal">,
): Promise<{ finished: FinishedJob; deaths: readonly Death[] }> {
  const { spec, onNote, linkDelayMs = 0 } = options;
  if (linkDelayMs > 0) {
    for (const name of cluster.names.filter((each) => each.startsWith("worker-"))) cluster.link(name).delay(linkDelayMs);
  }
  options.onCluster?.(cluster);
  const names = cluster.names.filter((name) => name.startsWith("worker-") || (options.killCoordinator && name === "coordinator"));
  const watch = new RecoveryWatch();
  const over = new AbortController();
  const killing = killUntil(over.signal, async (number, signal) => {
    const kill = plannedKill({ seed: options.seed, names, everyMs: options.everyMs }, number);
    await sleep(kill.afterMs, undefined, { signal });
    watch.died(kill.name, Date.now());
    await cluster.kill(kill.name, "SIGKILL");
    onNote(`killed ${kill.name} at step ${watch.step}`);
    await sleep(kill.deadMs, undefined, { signal });
    await cluster.restart(kill.name);
  });
  try {
    const training = runJob(cluster, spec, runtime, (job) => {
      watch.reported(job.step, Date.now());
      options.onChange?.(job);
    });
    const finished = await Promise.race([training, killing.then(() => training)]);
    over.abort();
    await options.onFinished?.("disturbed", cluster, finished);
    return { finished, deaths: watch.deaths };
  } finally {
    over.abort();
    await killing.catch(() => undefined);
  }
}

/** Repeats `once` with rising numbers until the signal aborts. */
async function killUntil(signal: AbortSignal, once: (number: number, signal: AbortSignal) => Promise<void>): Promise<void> {
  for (let number = 0; !signal.aborted; number++) {
    try {
      await once(number, signal);
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }
}

async function onCluster<T>(
  { workers, engine, faultyLinks = false }: Pick<LocalClusterOptions, "faultyLinks"> & Pick<ChaosOptions, "workers" | "engine">,
  action: (cluster: LocalCluster) => Promise<T>,
): Promise<T> {
  const dir = await mkdtemp(join(tmpdir(), "segue-chaos-"));
  let cluster: LocalCluster | undefined;
  try {
    cluster = await startLocalCluster({ dir, workers, engine, faultyLinks, evaluators: 0, dashboard: false });
    return await action(cluster);
  } finally {
    await cluster?.close();
    await rm(dir, { recursive: true, force: true, maxRetries: 3 });
  }
}
