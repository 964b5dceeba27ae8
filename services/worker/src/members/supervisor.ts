import { setTimeout as sleep } from "node:timers/promises";
import { SegueError } from "@segue/core";
import type { Logger } from "@segue/runtime";
import { backoffMs } from "../attach/backoff.js";
import type { MemberPlan } from "./member-plans.js";
import { MemberProcess, type MemberExit } from "./member-process.js";

export interface SupervisorOptions {
  readonly plans: readonly MemberPlan[];
  /** Path of the program that every member runs. */
  readonly program: string;
  readonly logger: Logger;
  /** From the signal on until what has not ended is killed. */
  readonly graceMs: number;
  /** Told when every member answers or has ended. */
  readonly onReady: (addresses: readonly string[]) => void;
}

/** How a member's process ends that nothing can help: runService's code for wrong settings, a refused token, a GPU that is gone. */
const REFUSED = 1;
/** A member that lived for so long has recovered from its earlier failures. */
const SOUND_MS = 60_000;

/**
 * Keeps one worker process for each GPU: a member that dies is started again after a growing pause, while the others go on; one that is
 * refused for good, or that ends by itself, is not.
 */
export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #running = new Set<MemberProcess>();

  constructor(options: SupervisorOptions) {
    this.#options = options;
  }

  /**
   * Until the signal aborts and all members have drained, or none is left.
   * @throws SegueError MEMBERS_FAILED when all were refused
   */
  async run(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const { plans, graceMs, onReady } = this.#options;
    const killAll = (): void => this.#signalAll("SIGKILL");
    // A second signal ends this process at once, and may leave nobody behind.
    process.once("exit", killAll);
    let killer: NodeJS.Timeout | undefined;
    const drain = (): void => {
      this.#signalAll("SIGTERM");
      killer = setTimeout(killAll, graceMs);
    };
    signal.addEventListener("abort", drain, { once: true });
    try {
      const answers: Promise<string | undefined>[] = [];
      const ends = plans.map((plan) => this.#keep(plan, signal, (ready) => answers.push(ready)));
      void Promise.all(answers).then((addresses) => onReady(addresses.filter((address) => address !== undefined)));
      const exits = await Promise.all(ends);
      if (!signal.aborted && exits.every(({ code }) => code === REFUSED)) {
        const message = `All ${plans.length} members ended with exit code ${REFUSED}; each has logged why.`;
        throw new SegueError("MEMBERS_FAILED", message, { status: "FAILED_PRECONDITION" });
      }
    } finally {
      clearTimeout(killer);
      signal.removeEventListener("abort", drain);
      process.off("exit", killAll);
    }
  }

  /** @param onStart given what the first process will answer, before this returns */
  async #keep(plan: MemberPlan, signal: AbortSignal, onStart: (ready: Promise<string | undefined>) => void): Promise<MemberExit> {
    const { logger, program } = this.#options;
    for (let failures = 0, isFirst = true; ; isFirst = false) {
      const startedMs = performance.now();
      const member = new MemberProcess(program, plan);
      this.#running.add(member);
      if (isFirst) onStart(member.ready);
      logger.info({ event: "memberStarted", member: plan.name, pid: member.pid }, "a member is started");
      const exit = await member.exited;
      this.#running.delete(member);
      if (signal.aborted || exit.code === 0) return exit;
      if (exit.code === REFUSED) {
        logger.error(
          { event: "memberRefused", member: plan.name, ...exit },
          "a member cannot work here; the others go on without it",
        );
        return exit;
      }
      failures = performance.now() - startedMs < SOUND_MS ? failures + 1 : 1;
      const pauseMs = Math.round(backoffMs(failures, Math.random()));
      logger.error({ event: "memberDied", member: plan.name, ...exit, failures, pauseMs }, "a member died; it is started again");
      await sleep(pauseMs, undefined, { signal }).catch(() => undefined);
      if (signal.aborted) return exit;
    }
  }

  #signalAll(signal: NodeJS.Signals): void {
    for (const member of this.#running) member.signal(signal);
  }
}
