import { SegueError } from "@segue/core";
import type { ObjectStore } from "./object-store.js";

export interface ObjectStoreOptions {
  /** Of an S3-compatible service; absent: Amazon's. */
  readonly s3Endpoint?: string | undefined;
  /** How long nothing may move on a connection that a request waits for. @default 30000 */
  readonly timeoutMs?: number | undefined;
}

const TIMEOUT_MS = 30_000;

/** @param url `s3://bucket/prefix`, or a folder. The AWS SDK is loaded only for the former. */
export async function openObjectStore(url: string, options: ObjectStoreOptions = {}): Promise<ObjectStore> {
  const [, bucket, prefix = ""] = /^s3:\/\/([^/]+)\/?(.*?)\/*$/.exec(url) ?? [];
  if (bucket === undefined) {
    if (url.includes("://")) {
      throw new SegueError("CHECKPOINTS_URL_INVALID", `SEGUE_CHECKPOINTS is ${url}; give s3://bucket/prefix or a folder.`);
    }
    const { FolderObjects } = await import("./folder-objects.js");
    return new FolderObjects(url);
  }
  const { S3Objects } = await import("./s3-objects.js");
  return new S3Objects(bucket, prefix, options.s3Endpoint, options.timeoutMs ?? TIMEOUT_MS);
}
