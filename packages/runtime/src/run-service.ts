import { closeSync, writeSync } from "node:fs";
import { constants } from "node:os";
import { SegueError } from "@segue/core";
import { parseFaults } from "./faults/fault-plan.js";
import { planFaults } from "./faults/fault-points.js";
import { createLogger, type Logger } from "./logger.js";
import { keepHeapsSmall } from "./small-heaps.js";

export interface ServiceContext {
  /** Aborts at the first SIGTERM or SIGINT: finish what must be finished and return. */
  readonly signal: AbortSignal;
  readonly logger: Logger;
}

/** sysexits' EX_SOFTWARE: a bug, as against 1 for an error that the user can mend. */
const BUG_EXIT_CODE = 70;
const LINGER_MS = 2_000;

/**
 * Runs a service to its end and sets the exit code: 0, 1 for a SegueError, 70 for any other error or an unhandled rejection. The first
 * SIGTERM or SIGINT aborts the signal, the second exits at once with 128 + its number.
 */
export async function runService(
  main: (context: ServiceContext) => Promise<void>,
  options: { service?: string } = {},
): Promise<void> {
  keepHeapsSmall();
  const logger = createLogger(options.service ?? "segue", process.env["SEGUE_LOG_LEVEL"] || "info");
  const stop = new AbortController();
  const onSignal = (name: NodeJS.Signals): void => {
    if (stop.signal.aborted) process.exit(128 + constants.signals[name]);
    logger.info({ signal: name }, "stopping; a second signal ends at once");
    stop.abort();
  };
  const onBug = (error: unknown): void => {
    logger.fatal({ err: error }, "unexpected error");
    process.exit(BUG_EXIT_CODE);
  };
  process.on("SIGTERM", onSignal).on("SIGINT", onSignal);
  process.on("uncaughtException", onBug).on("unhandledRejection", onBug);
  try {
    const faults = process.env["SEGUE_FAULTS"];
    if (faults) planFaults(parseFaults(faults), logger);
    await main({ signal: stop.signal, logger });
    process.exitCode = 0;
  } catch (error) {
    process.exitCode = reportFailure(error, logger);
  }
  // Something that was not closed must not keep a finished service alive.
  setTimeout(() => {
    logger.warn("something was left open; exiting anyway");
    process.exit();
  }, LINGER_MS).unref();
}

/** Tells the parent process, if it asked through SEGUE_READY_FD, that the service answers: one JSON line on that descriptor. */
export function announceReady(address: string, readyFd: string | number | undefined = process.env["SEGUE_READY_FD"]): void {
  if (readyFd === undefined || readyFd === "") return;
  const fd = Number(readyFd);
  try {
    writeSync(fd, `${JSON.stringify({ ready: true, address })}\n`);
    if (fd > 2) closeSync(fd);
  } catch (error) {
    throw new SegueError("READY_FD_INVALID", `SEGUE_READY_FD=${readyFd} is not an open file descriptor.`, { cause: error });
  }
}

function reportFailure(error: unknown, logger: Logger): number {
  if (!(error instanceof SegueError)) {
    logger.fatal({ err: error }, "unexpected error");
    return BUG_EXIT_CODE;
  }
  const { code, violations, cause } = error;
  logger.fatal({ code, violations, ...(cause instanceof Error ? { reason: cause.message } : {}) }, error.message);
  return 1;
}
