import { formatShort } from "../show/format.js";
import type { ProgressTarget } from "../show/progress.js";
import type { StudyProgress } from "./run-study.js";

const PLAIN_INTERVAL_MS = 10_000;

/** Shows how a study goes on: a line for each job that starts or ends, and one that says how far all are. */
export class StudyProgressView {
  readonly #target: ProgressTarget;
  readonly #phases = new Map<string, string>();
  #shownAtMs = -Infinity;
  #lineIsOpen = false;

  constructor(target: ProgressTarget) {
    this.#target = target;
  }

  update(progress: StudyProgress, nowMs = Date.now()): void {
    for (const { jobId, phase, loss, reason } of progress.jobs) {
      if (this.#phases.get(jobId) === phase) continue;
      this.#phases.set(jobId, phase);
      const detail = phase === "SUCCEEDED" ? `, loss ${loss.toFixed(4)}` : reason === "" ? "" : `: ${reason}`;
      if (phase !== "WAITING") this.#note(`${jobId} ${phase.toLowerCase()}${detail}`);
    }
    const line = progressText(progress);
    if (this.#target.isTerminal) {
      this.#target.write(`\r\x1b[2K${line.slice(0, this.#target.columns - 1)}`);
      this.#lineIsOpen = true;
    } else if (nowMs - this.#shownAtMs >= PLAIN_INTERVAL_MS) {
      this.#target.write(`${line}\n`);
      this.#shownAtMs = nowMs;
    }
  }

  end(): void {
    if (this.#lineIsOpen) this.#target.write("\n");
    this.#lineIsOpen = false;
  }

  #note(text: string): void {
    this.#target.write(this.#lineIsOpen ? `\r\x1b[2K${text}\n` : `${text}\n`);
    this.#lineIsOpen = false;
  }
}

function progressText({ jobs, evaluations, evaluationsDone }: StudyProgress): string {
  const running = jobs.filter(({ phase }) => phase === "RUNNING");
  const shares = running.map(({ step, totalSteps }) => `${Math.floor((100 * step) / totalSteps)} %`);
  const speed = running.reduce((sum, { tokensPerSecond }) => sum + tokensPerSecond, 0);
  return [
    `${jobs.filter(({ phase }) => phase === "SUCCEEDED").length} of ${jobs.length} jobs done`,
    ...(running.length > 0 ? [`${running.length} running (${shares.join(", ")}), ${formatShort(speed)} tokens/s`] : []),
    `${evaluationsDone} of ${evaluations} evaluations`,
  ].join("; ");
}
