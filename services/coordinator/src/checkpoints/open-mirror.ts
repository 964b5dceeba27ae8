import { SegueError } from "@segue/core";
import { CheckpointMirror, type MirrorOptions } from "./checkpoint-mirror.js";
import { openObjectStore, type ObjectStoreOptions } from "./open-object-store.js";

/** Answers of 4xx that time mends, or that are about one object and not about access. */
const NO_REFUSALS: readonly string[] = ["NoSuchKey", "NoSuchUpload", "RequestTimeout", "RequestTimeTooSkewed"];
const NO_REFUSAL_STATUS: readonly number[] = [408, 409, 425, 429];

/**
 * The mirror at a URL. One that does not answer now is warned of and used later: checkpoints are on disk meanwhile.
 * @throws SegueError CHECKPOINTS_URL_INVALID, CHECKPOINTS_REFUSED when the service answers and refuses (no such bucket, no permission)
 */
export async function openMirror(
  { url, ...where }: ObjectStoreOptions & { readonly url: string },
  options: Omit<MirrorOptions, "objects">,
): Promise<CheckpointMirror> {
  const objects = await openObjectStore(url, where);
  const mirror = new CheckpointMirror({ ...options, objects });
  try {
    await mirror.open();
  } catch (cause) {
    const reason = cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause);
    if (isRefusal(cause)) {
      objects.close();
      const message = `${url} cannot be used for checkpoints (${reason}); check the bucket, the credentials and SEGUE_S3_ENDPOINT.`;
      throw new SegueError("CHECKPOINTS_REFUSED", message, { status: "FAILED_PRECONDITION", cause });
    }
    const consequence = "checkpoints are only on this machine until it answers, and jobs that are only there are not found";
    options.logger.warn({ event: "mirrorUnreachable", url, err: cause }, consequence);
  }
  return mirror;
}

/** The service has understood and denies access, or there is nothing to sign requests with; waiting would not help. */
export function isRefusal(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { httpStatusCode = 0 } = (error as { $metadata?: { httpStatusCode?: number } }).$metadata ?? {};
  if (error.name === "CredentialsProviderError") return true;
  const isTransient = NO_REFUSALS.includes(error.name) || NO_REFUSAL_STATUS.includes(httpStatusCode);
  return httpStatusCode >= 400 && httpStatusCode < 500 && !isTransient;
}
