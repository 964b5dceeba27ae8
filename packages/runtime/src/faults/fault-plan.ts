import { SegueError } from "@segue/core";
import { z } from "zod";

/** Moments of a worker's work at which it can be made to fail, in the order in which a round passes them. */
export const WORKER_POINTS = [
  /** A Join has come; nothing is loaded. */
  "worker.joining",
  /** Weights, optimizer and states of the Join are loaded; Ready is not sent. */
  "worker.joined",
  /** Before the forward pass of a step. */
  "worker.stepBegins",
  /** Forward and backward of a step are under way on the compute thread. */
  "worker.computing",
  /** A node's gradient is computed and not yet published. */
  "worker.gradientComputed",
  /** All nodes are published; the peers' are being pulled. */
  "worker.nodesPublished",
  /** The own slice of all nodes is here; it is not added up. */
  "worker.nodesGathered",
  /** The own slice of the sum is published; the peers' are being pulled. */
  "worker.sumPublished",
  /** The whole sum is here; the optimizer has not stepped. */
  "worker.sumsGathered",
  /** The round's steps are done; nothing is saved. */
  "worker.snapshotBegins",
  /** The snapshot is published; RoundDone is not sent. */
  "worker.snapshotPublished",
  /** The next member's moments are here as well (sync.optimizer sharded); RoundDone is not sent. */
  "worker.sliceCopied",
  /** RoundDone is sent. */
  "worker.roundReported",
  /** A peer or the coordinator asks for a tensor. */
  "worker.tensorAsked",
] as const;

/** The same for the coordinator. */
export const COORDINATOR_POINTS = [
  /** A generation is decided on; no Join is sent. */
  "coordinator.forming",
  /** The round's segments are sent; RunRound is not. */
  "coordinator.roundBegins",
  /** RunRound is sent. */
  "coordinator.roundStarted",
  /** Every member has reported the round; lane states are not pulled. */
  "coordinator.roundReported",
  /** Lane states are here; nothing is committed. */
  "coordinator.statesPulled",
  /** The round is committed; a checkpoint may be due. */
  "coordinator.roundCommitted",
  /** A checkpoint's folder is made; no file is complete. */
  "coordinator.checkpointBegins",
  /** All files but the manifest are written. */
  "coordinator.checkpointFilesWritten",
  /** The checkpoint has its name; evaluations are not queued. */
  "coordinator.checkpointWritten",
] as const;

/** The same for an evaluator. */
export const EVALUATOR_POINTS = [
  /** A cell is taken from the queue; nothing of it is computed. */
  "evaluator.cellBegins",
  /** The cell is computed; its result is not written. */
  "evaluator.cellComputed",
] as const;

export const FAULT_POINTS = [...WORKER_POINTS, ...COORDINATOR_POINTS, ...EVALUATOR_POINTS] as const;

export type FaultPoint = (typeof FAULT_POINTS)[number];

/** One planned failure of one process; it happens once. */
export interface Fault {
  readonly point: FaultPoint;
  /** Optimizer steps applied when it happens, or the first that is at least that; absent: the first time the point is reached. */
  readonly fromStep?: number | undefined;
  /**
   * `kill`: SIGKILL to the own process. `delay`: wait. `hold`: wait for a file, so that a test finds a job in the middle, however fast or
   * slow the machine is. `drop`: the call fails with UNAVAILABLE, as a broken connection would.
   */
  readonly action: "kill" | "delay" | "hold" | "drop";
  /** Length of a delay; for `kill`, how long after the point. @default 0 */
  readonly afterMs?: number | undefined;
  /** Path of the file that ends a `hold` as soon as it is there. */
  readonly untilFile?: string | undefined;
}

const faultSchema = z
  .strictObject({
    point: z.enum(FAULT_POINTS),
    fromStep: z.int().min(0).optional(),
    action: z.enum(["kill", "delay", "hold", "drop"]),
    afterMs: z.int().min(0).max(600_000).optional(),
    untilFile: z.string().min(1).optional(),
  })
  .refine(({ action, untilFile }) => (action === "hold") === (untilFile !== undefined), {
    message: "hold takes untilFile, and nothing else does",
  });

/** @throws SegueError FAULTS_INVALID when the text (the variable SEGUE_FAULTS) is not a JSON list of {@link Fault}s */
export function parseFaults(json: string): readonly Fault[] {
  try {
    return z.array(faultSchema).parse(JSON.parse(json));
  } catch (cause) {
    const why = cause instanceof z.ZodError ? z.prettifyError(cause).replaceAll("\n", " ") : "it is not JSON";
    throw new SegueError(
      "FAULTS_INVALID",
      `SEGUE_FAULTS must be a JSON list such as [{"point":"worker.computing","action":"kill"}]: ${why}`,
      { cause },
    );
  }
}

/**
 * The first fault that is due, and what is left of the plan without it.
 * @param step optimizer steps applied; undefined where the point belongs to none
 */
export function takeFault(
  plan: readonly Fault[],
  point: FaultPoint,
  step: number | undefined,
): { readonly fault: Fault | undefined; readonly rest: readonly Fault[] } {
  const due = plan.findIndex(
    (fault) => fault.point === point && (fault.fromStep === undefined || (step !== undefined && step >= fault.fromStep)),
  );
  return due < 0 ? { fault: undefined, rest: plan } : { fault: plan[due], rest: plan.toSpliced(due, 1) };
}
