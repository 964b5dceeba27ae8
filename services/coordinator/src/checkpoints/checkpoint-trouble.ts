import { SegueError } from "@segue/core";

/** The mirror does not answer, or fails: time mends it. @param what predicate of the URL, or of an object in it */
export function bucketAway(url: string, what: string, cause?: unknown): SegueError {
  return new SegueError("CHECKPOINTS_UNREACHABLE", `${url} ${what}.`, { status: "UNAVAILABLE", retryable: true, cause });
}

export function isBucketAway(error: unknown): error is SegueError {
  return error instanceof SegueError && error.code === "CHECKPOINTS_UNREACHABLE";
}

/** The file system refuses to read what is there. */
export function checkpointsUnreadable(path: string, cause: unknown): SegueError {
  const message = `${path} cannot be read: ${cause instanceof Error ? cause.message : String(cause)}.`;
  return new SegueError("CHECKPOINTS_UNREADABLE", message, { status: "FAILED_PRECONDITION", cause });
}

/** @param step of a checkpoint that was written */
export function checkpointsMissing(step: number, folder: string, url: string | undefined): SegueError {
  const places = url === undefined ? folder : `${folder} and ${url}`;
  const message = `A checkpoint of step ${step} was written, but there is none in ${places}.`;
  return new SegueError("CHECKPOINTS_MISSING", message, { status: "FAILED_PRECONDITION" });
}

/** Whether people can put it right, so that a job waits for that, paused: beginning anew would throw away what was learned. */
export function isCheckpointTrouble(error: unknown): error is SegueError {
  return error instanceof SegueError && (error.code === "CHECKPOINTS_UNREADABLE" || error.code === "CHECKPOINTS_MISSING");
}
