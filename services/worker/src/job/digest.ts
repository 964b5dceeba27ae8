import { createHash } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import type { PagedFloats } from "@segue/core";
import { bytesOf } from "../compute/shared.js";

/** About a millisecond's work. */
const SLICE_BYTES = 2 ** 21;

/**
 * SHA-256 of the floats of a vector as they lie in memory, hex. Works in slices between which this thread does other things, so that neither heartbeats
 * nor the compute thread wait for it.
 * @throws what the signal was aborted with
 */
export async function digestOf({ pages }: PagedFloats, signal: AbortSignal): Promise<string> {
  const hash = createHash("sha256");
  for (const bytes of pages.map(bytesOf)) {
    for (let at = 0; at < bytes.byteLength; at += SLICE_BYTES) {
      await setImmediate();
      signal.throwIfAborted();
      hash.update(bytes.subarray(at, at + SLICE_BYTES));
    }
  }
  return hash.digest("hex");
}
