import { SegueError } from "@segue/core";
import { CheckpointMirror, type MirrorOptions } from "./checkpoint-mirror.js";
import { openObjectStore } from "./open-object-store.js";

/**
 * The mirror at a URL. One that does not answer now is warned of and used later: checkpoints are on disk meanwhile.
 * @throws SegueError CHECKPOINTS_URL_INVALID, CHECKPOINTS_REFUSED when the service answers and refuses (no such bucket, no permission)
 */
export async function openMirror(
  { url, s3Endpoint }: { readonly url: string; readonly s3Endpoint?: string | undefined },
  options: Omit<MirrorOptions, "objects">,
): Promise<CheckpointMirror> {
  const objects = await openObjectStore(url, { s3Endpoint });
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

/** The service has understood and said no, or there is nothing to sign requests with; waiting would not help. */
function isRefusal(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { httpStatusCode = 0 } = (error as { $metadata?: { httpStatusCode?: number } }).$metadata ?? {};
  return (httpStatusCode >= 400 && httpStatusCode < 500) || error.name === "CredentialsProviderError";
}
