import { formatCount, formatDuration, formatShort, formatStepMs } from "./format.js";
import type { JobView } from "./job-view.js";

/** Where progress goes: a terminal gets one line that is drawn again and again, anything else plain lines now and then. */
export interface ProgressTarget {
  readonly isTerminal: boolean;
  readonly columns: number;
  write(text: string): void;
}

const BAR_WIDTH = 20;
const PLAIN_INTERVAL_MS = 5_000;

/** Shows how a job goes on. {@link end} leaves the cursor on a line of its own. */
export class ProgressView {
  readonly #target: ProgressTarget;
  #shown: JobView | undefined;
  #shownAtMs = -Infinity;
  #lineIsOpen = false;

  constructor(target: ProgressTarget) {
    this.#target = target;
  }

  update(job: JobView, nowMs = Date.now()): void {
    for (const news of newsSince(this.#shown, job)) this.note(news);
    if (this.#target.isTerminal) {
      this.#target.write(`\r\x1b[2K${progressLine(job).slice(0, this.#target.columns - 1)}`);
      this.#lineIsOpen = true;
    } else if (job.step !== this.#shown?.step && (nowMs - this.#shownAtMs >= PLAIN_INTERVAL_MS || job.step === job.totalSteps)) {
      this.#target.write(`${progressLine(job)}\n`);
      this.#shownAtMs = nowMs;
    }
    this.#shown = job;
  }

  /** A line that stays. */
  note(text: string): void {
    this.#target.write(this.#lineIsOpen ? `\r\x1b[2K${text}\n` : `${text}\n`);
    this.#lineIsOpen = false;
  }

  end(): void {
    if (this.#lineIsOpen) this.#target.write("\n");
    this.#lineIsOpen = false;
  }
}

/** One line: bar, share, step, loss, tokens per second, time left. */
export function progressLine(job: JobView): string {
  const share = job.totalSteps === 0 ? 0 : job.step / job.totalSteps;
  const filled = Math.floor(share * BAR_WIDTH);
  const parts = [
    `[${"#".repeat(filled)}${".".repeat(BAR_WIDTH - filled)}] ${Math.floor(100 * share)} %`,
    `step ${formatCount(job.step)}/${formatCount(job.totalSteps)}`,
    ...(job.step > 0 ? [`loss ${job.loss.toFixed(4)}`] : []),
    ...(job.tokensPerSecond > 0 ? [`${formatShort(job.tokensPerSecond)} tokens/s`] : []),
    ...exchangeShare(job),
    ...(job.phase === "RUNNING" && job.etaSeconds > 0 ? [`ETA ${formatDuration(job.etaSeconds)}`] : []),
  ];
  return parts.join("  ");
}

/** How much of a step's time the members wait for each other's gradients. */
function exchangeShare({ members }: JobView): string[] {
  const sum = (part: "computeMs" | "exchangeMs" | "restMs"): number =>
    members.reduce((total, { stepTimes }) => total + (stepTimes?.[part] ?? 0), 0);
  const all = sum("computeMs") + sum("exchangeMs") + sum("restMs");
  return members.length > 1 && all > 0 ? [`exchange ${Math.round((100 * sum("exchangeMs")) / all)} %`] : [];
}

/** What deserves a line of its own: another phase or reason, a member that became slow, a new checkpoint. */
export function newsSince(before: JobView | undefined, job: JobView): string[] {
  const news: string[] = [];
  if (before?.phase !== job.phase || before.reason !== job.reason) {
    const members = job.phase === "RUNNING" && job.workers > 0 ? ` on ${job.workers} worker${job.workers === 1 ? "" : "s"}` : "";
    const engine = members !== "" && job.engine !== "" ? `, ${job.engine}` : "";
    news.push(`${job.jobId} ${job.phase.toLowerCase()}${members}${engine}${job.reason === "" ? "" : `: ${job.reason}`}`);
  }
  const slowBefore = new Set(before?.members.filter(({ straggler }) => straggler).map(({ workerId }) => workerId));
  for (const { workerId, shardMs, straggler } of job.members) {
    if (straggler && !slowBefore.has(workerId)) news.push(`${workerId} is slow: ${formatStepMs(shardMs)} ms a shard and step`);
  }
  if (job.checkpointDigest !== "" && job.checkpointDigest !== before?.checkpointDigest) {
    news.push(`checkpoint at step ${formatCount(job.checkpointStep)}, digest ${job.checkpointDigest.slice(0, 16)}`);
  }
  if (job.notDurable !== "" && job.notDurable !== before?.notDurable) news.push(`not durable: ${job.notDurable}`);
  if (job.notDurable === "" && (before?.notDurable ?? "") !== "") news.push("durable again");
  if (job.evaluationsNotQueued !== "" && (before?.evaluationsNotQueued ?? "") === "") news.push(job.evaluationsNotQueued);
  if (job.evaluationsNotQueued === "" && (before?.evaluationsNotQueued ?? "") !== "") news.push("all evaluations are queued");
  if (job.checkpointWarning !== "" && job.checkpointWarning !== before?.checkpointWarning) news.push(job.checkpointWarning);
  if (job.leftOut !== "" && job.leftOut !== before?.leftOut) news.push(job.leftOut);
  return news;
}
