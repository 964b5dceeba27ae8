/** Names of gRPC status codes, so that the pure core can say how an error travels without knowing gRPC. */
export type StatusName =
  | "INVALID_ARGUMENT"
  | "NOT_FOUND"
  | "ALREADY_EXISTS"
  | "PERMISSION_DENIED"
  | "UNAUTHENTICATED"
  | "RESOURCE_EXHAUSTED"
  | "FAILED_PRECONDITION"
  | "ABORTED"
  | "OUT_OF_RANGE"
  | "UNIMPLEMENTED"
  | "INTERNAL"
  | "UNAVAILABLE"
  | "DATA_LOSS"
  | "DEADLINE_EXCEEDED"
  | "CANCELLED"
  | "UNKNOWN";

/** One thing wrong with an input: where, and what to change. */
export interface Violation {
  /** Path of the field, for example `tbptt.segmentTokens`; empty: the whole input. */
  readonly field: string;
  readonly description: string;
}

export interface SegueErrorOptions {
  readonly status?: StatusName;
  readonly violations?: readonly Violation[];
  /** Whether the same call may succeed later. */
  readonly retryable?: boolean;
  /** Kept for logs, never sent. */
  readonly cause?: unknown;
}

/**
 * The one error class of Segue: a stable code (SCREAMING_SNAKE) for programs, a sentence that says what to change for people.
 * @default status INVALID_ARGUMENT, not retryable: most errors are somebody's input
 */
export class SegueError extends Error {
  override readonly name = "SegueError";
  readonly code: string;
  readonly status: StatusName;
  readonly violations?: readonly Violation[];
  readonly retryable: boolean;

  constructor(code: string, message: string, options: SegueErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.status = options.status ?? "INVALID_ARGUMENT";
    if (options.violations) this.violations = options.violations;
    this.retryable = options.retryable ?? false;
  }
}
