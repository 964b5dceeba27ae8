import { SegueError, type JobSpec } from "@segue/core";
import type { StoredFingerprint } from "./fingerprint.js";
import { openDocuments, type DataFolders, type OpenDocuments } from "./open-documents.js";

/**
 * The documents of a job that exists: its spec is valid, so whatever is wrong is with its files.
 * @throws SegueError DATA_CHANGED, DATA_UNREADABLE
 */
export async function openForJob(
  spec: JobSpec,
  folders: DataFolders,
  fingerprint: StoredFingerprint | undefined,
  tokenizerSha256?: string,
): Promise<OpenDocuments> {
  try {
    return await openDocuments(spec, folders, fingerprint === undefined ? undefined : { fingerprint, tokenizerSha256 });
  } catch (cause) {
    if (!(cause instanceof SegueError)) throw cause;
    const { violations } = cause;
    if (!violations) throw cause;
    const message = `The data cannot be used: ${violations.map(({ field, description }) => `${field}: ${description}`).join("; ")}.`;
    throw new SegueError("DATA_UNREADABLE", message, { status: "FAILED_PRECONDITION", violations, cause });
  }
}
