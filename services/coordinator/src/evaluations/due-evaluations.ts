import { SegueError, type EvaluationSpec } from "@segue/core";
import type { Logger } from "@segue/runtime";
import { Bell } from "../async-queue.js";
import type { EvaluationQueue, Submitted } from "./evaluation-queue.js";
import type { EvaluationRequest } from "./evaluation-settings.js";

export interface DueEvaluationsOptions {
  /** undefined: there is no Redis, so nothing is queued and no checkpoint waits for an evaluation. */
  readonly queue: Pick<EvaluationQueue, "submit" | "isPending"> | undefined;
  readonly logger: Logger;
  /** Told which evaluations of a job are not queued and why, and "" when all are. */
  readonly onTrouble: (jobId: string, notQueued: string) => void;
  /** Told when a checkpoint that was asked for is needed no more. */
  readonly onOver: (jobId: string) => void;
}

export interface EvaluatedCheckpoint {
  readonly jobId: string;
  readonly step: number;
  readonly digest: string;
}

interface Waiting extends EvaluatedCheckpoint {
  /** To be queued. */
  readonly due: EvaluationSpec[];
  /** Being queued because people asked for them. */
  submitting: number;
  /** Redis is to be asked whether an evaluation still waits: somebody wants to delete the checkpoint, or nobody knows. */
  isAsked: boolean;
}

const POLL_MS = 5_000;
const FIRST_RETRY_MS = 250;

/**
 * What checkpoints wait for: evaluations that are to be queued, and queued ones that are not over. It alone talks to the queue on behalf
 * of training, in the background, for as long as it takes; whoever asks is answered at once from what is known. What is not known counts
 * as waiting.
 */
export class DueEvaluations {
  readonly #options: DueEvaluationsOptions;
  /** By job and step. */
  readonly #waiting = new Map<string, Waiting>();
  /** Jobs that were told of trouble. */
  readonly #troubled = new Set<string>();
  readonly #bell = new Bell();
  readonly #work: Promise<void>;
  #isClosing = false;

  constructor(options: DueEvaluationsOptions) {
    this.#options = options;
    this.#work = this.#run();
  }

  /** A checkpoint is written, and these evaluations of it fall due. */
  add(checkpoint: EvaluatedCheckpoint, evaluations: readonly EvaluationSpec[]): void {
    if (evaluations.length === 0) return;
    if (!this.#options.queue) {
      const names = evaluations.map(({ name }) => name).join(", ");
      this.#options.onTrouble(checkpoint.jobId, `evaluations are not queued (${names}): the coordinator has no REDIS_URL`);
      return;
    }
    this.#entry(checkpoint, evaluations);
  }

  /** A checkpoint is in the store of a coordinator that starts: these evaluations of it are due, unless they are queued already. */
  found(checkpoint: EvaluatedCheckpoint, evaluations: readonly EvaluationSpec[]): void {
    if (this.#options.queue) this.#entry(checkpoint, evaluations).isAsked = true;
  }

  /**
   * Queues an evaluation that somebody asks for.
   * @throws SegueError as EvaluationQueue.submit does, and EVALUATION_QUEUE_UNAVAILABLE without Redis
   */
  async submit(request: EvaluationRequest): Promise<Submitted[]> {
    const { queue } = this.#options;
    if (!queue) {
      throw new SegueError("EVALUATION_QUEUE_UNAVAILABLE", "Evaluations need Redis; start the coordinator with REDIS_URL.", {
        status: "FAILED_PRECONDITION",
      });
    }
    const waiting = this.#entry(request, []);
    waiting.submitting++;
    try {
      return await queue.submit(request, true);
    } finally {
      waiting.submitting--;
      waiting.isAsked = true;
      this.#bell.ring();
    }
  }

  /** Whether a checkpoint's files may still be needed. Answers at once; `onOver` is called when a yes has become a no. */
  isNeeded(jobId: string, step: number): boolean {
    const waiting = this.#waiting.get(keyOf({ jobId, step }));
    if (!waiting) return false;
    waiting.isAsked = true;
    this.#bell.ring();
    return true;
  }

  /** Redis may answer again: what failed is tried at once. */
  wake(): void {
    this.#bell.ring();
  }

  /** What is not queued by now is queued after the next start. Idempotent. */
  async close(): Promise<void> {
    this.#isClosing = true;
    this.#bell.ring();
    await this.#work;
  }

  #entry({ jobId, step, digest }: EvaluatedCheckpoint, evaluations: readonly EvaluationSpec[]): Waiting {
    const key = keyOf({ jobId, step });
    const known = this.#waiting.get(key);
    const { submitting = 0, isAsked = false } = known ?? {};
    // One that was written anew with other weights is another checkpoint.
    const waiting = known?.digest === digest ? known : { jobId, step, digest, due: [], submitting, isAsked };
    waiting.due.push(...evaluations.filter(({ name }) => !waiting.due.some((other) => other.name === name)));
    this.#waiting.set(key, waiting);
    this.#bell.ring();
    return waiting;
  }

  async #run(): Promise<void> {
    for (let failures = 0; !this.#isClosing;) {
      const open = [...this.#waiting.values()].filter(({ due, isAsked }) => due.length > 0 || isAsked);
      try {
        for (const waiting of open) if (!this.#isClosing) await this.#settle(waiting);
        failures = 0;
      } catch (error) {
        failures++;
        this.#reportTrouble(error);
      }
      await this.#pause(open.length === 0 ? undefined : failures === 0 ? POLL_MS : retryMs(failures));
    }
  }

  /** Until there is news, or it is time. */
  async #pause(ms: number | undefined): Promise<void> {
    const timer = ms === undefined ? undefined : setTimeout(() => this.#bell.ring(), ms);
    await this.#bell.wait();
    clearTimeout(timer);
  }

  async #settle(waiting: Waiting): Promise<void> {
    const { queue, onOver } = this.#options;
    const { jobId, step, digest, due } = waiting;
    for (let evaluation = due[0]; evaluation; evaluation = due[0]) {
      await this.#submitDue({ jobId, step, digest, evaluation });
      due.shift();
    }
    this.#reportQueued(jobId);
    if (!waiting.isAsked || (await queue?.isPending(jobId, step))) return;
    const key = keyOf(waiting);
    // Unless there was news while Redis was asked.
    if (due.length > 0 || waiting.submitting > 0 || this.#waiting.get(key) !== waiting) return;
    this.#waiting.delete(key);
    onOver(jobId);
  }

  async #submitDue(request: EvaluationRequest): Promise<void> {
    const { queue, logger, onTrouble } = this.#options;
    const { jobId, step, evaluation } = request;
    try {
      await queue?.submit(request, false);
      logger.info({ event: "evaluationQueued", jobId, step, evaluation: evaluation.name }, "an evaluation is queued");
    } catch (error) {
      if (error instanceof SegueError && error.retryable) throw error;
      // Time mends nothing here: it is said, and this evaluation is left out.
      logger.error(
        { event: "evaluationNotQueued", jobId, step, evaluation: evaluation.name, err: error },
        "no evaluation was queued",
      );
      onTrouble(jobId, error instanceof Error ? error.message : String(error));
    }
  }

  #stepsWithDue(ofJob: string): number[] {
    const steps = [...this.#waiting.values()].flatMap(({ jobId, due, step }) => (jobId === ofJob && due.length > 0 ? [step] : []));
    return steps.sort((a, b) => a - b);
  }

  #reportTrouble(error: unknown): void {
    const { logger, onTrouble } = this.#options;
    const why = error instanceof SegueError && error.cause instanceof Error ? ` (${error.cause.message})` : "";
    for (const jobId of new Set([...this.#waiting.values()].map((waiting) => waiting.jobId))) {
      const steps = this.#stepsWithDue(jobId);
      if (steps.length === 0) continue;
      if (!this.#troubled.has(jobId)) {
        logger.warn({ event: "evaluationsNotQueued", jobId, steps, err: error }, "evaluations are not queued; training goes on");
      }
      this.#troubled.add(jobId);
      const which = `evaluations of step${steps.length === 1 ? "" : "s"} ${steps.join(", ")} are not queued`;
      onTrouble(jobId, `${which}: Redis does not answer${why}. They are queued when it does; their checkpoints stay until then`);
    }
  }

  #reportQueued(jobId: string): void {
    if (!this.#troubled.has(jobId) || this.#stepsWithDue(jobId).length > 0) return;
    this.#troubled.delete(jobId);
    this.#options.logger.info({ event: "evaluationsQueuedAgain", jobId }, "evaluations can be queued again");
    this.#options.onTrouble(jobId, "");
  }
}

/** @param failures in a row, at least 1 */
function retryMs(failures: number): number {
  return Math.min(POLL_MS, FIRST_RETRY_MS * 2 ** (failures - 1));
}

function keyOf({ jobId, step }: Pick<EvaluatedCheckpoint, "jobId" | "step">): string {
  return `${jobId} ${step}`;
}
