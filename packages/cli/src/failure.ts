import { CommanderError } from "commander";
import { SegueError } from "@segue/core";
import { fromServiceError } from "@segue/runtime";

/** Exit codes of every command. */
export const EXIT = {
  ok: 0,
  /** Refused or gone wrong. */
  failed: 1,
  /** The command line or the input is not right. */
  usage: 2,
  /** The coordinator or Redis does not answer. */
  unreachable: 3,
  /** The job that was watched failed or was cancelled. */
  jobFailed: 4,
  /** Ended by Ctrl-C or SIGTERM. */
  interrupted: 130,
} as const;

/** A watched job ended without success. */
export class JobFailedError extends SegueError {
  constructor(jobId: string, phase: "FAILED" | "CANCELLED", reason: string) {
    super(`JOB_${phase}`, `${jobId} ${phase === "FAILED" ? "failed" : "was cancelled"}${reason === "" ? "." : `: ${reason}`}`, {
      status: "ABORTED",
    });
  }
}

/** The command has printed its whole result, which says what went wrong: only the exit code is left. */
export class ReportedFailure extends Error {
  readonly exitCode: number;

  constructor(exitCode: number) {
    super("the result says what went wrong");
    this.exitCode = exitCode;
  }
}

/** Any error as one with a code and a sentence; `coordinator` is the address to name when nothing answers there. */
export function asFailure(error: unknown, coordinator?: string): SegueError {
  if (error instanceof CommanderError) {
    return new SegueError("USAGE", error.message.replace(/^error: /, "").replace(/\n[^]*$/, ""), { cause: error });
  }
  const failure = fromServiceError(error);
  // A bare status comes from the connection, in grpc-js's words.
  if (failure.code !== "UNAVAILABLE" || coordinator === undefined) return failure;
  return new SegueError(
    "COORDINATOR_UNREACHABLE",
    `No coordinator answers at ${coordinator} (${failure.message}). Start one with \`segue cluster up\`, ` +
      "or name another with --coordinator or SEGUE_COORDINATOR.",
    { status: "UNAVAILABLE", retryable: true, cause: error },
  );
}

export function exitCodeOf(failure: SegueError): number {
  if (failure instanceof JobFailedError) return EXIT.jobFailed;
  switch (failure.status) {
    case "INVALID_ARGUMENT":
    case "OUT_OF_RANGE":
      return EXIT.usage;
    case "UNAVAILABLE":
    case "DEADLINE_EXCEEDED":
      return EXIT.unreachable;
    default:
      return EXIT.failed;
  }
}

/** `error CODE: sentence`, and below it the fields that are wrong unless the sentence lists them already. */
export function renderFailure({ code, message, violations = [] }: SegueError): string {
  const unlisted = violations.filter(({ description }) => !message.includes(description));
  const lines = unlisted.map(({ field, description }) => `  ${field === "" ? "" : `${field}: `}${description}`);
  return [`error ${code}: ${message}`, ...lines].join("\n");
}

/** The same for programs. */
export function failureJson({ code, message, violations, retryable }: SegueError): string {
  return JSON.stringify({ error: { code, message, ...(violations ? { violations } : {}), retryable } });
}
