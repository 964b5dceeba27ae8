import { createHash } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import type { PagedFloats } from "@segue/core";
import { BlockDigest } from "@segue/runtime";
import { bytesOf } from "../compute/shared.js";

/** Hashed between two looks at the signal. */
const STRETCH_BYTES = 2 ** 28;
/** Hashed on this thread without letting its event loop serve anybody else: about a millisecond's work. */
const SLICE_BYTES = 2 ** 21;

/**
 * Digest of the weights, of the second kind (docs/design/cluster-protocol.md), hex; hashed on other threads, so that neither heartbeats nor
 * the compute thread wait for it.
 * @throws what the signal was aborted with
 */
export async function digestOf(weights: PagedFloats, signal: AbortSignal): Promise<string> {
  const digest = new BlockDigest(weights.length * Float32Array.BYTES_PER_ELEMENT);
  for (const stretch of slicesOf(weights, STRETCH_BYTES)) {
    signal.throwIfAborted();
    await digest.update(stretch);
  }
  return digest.soFar();
}

/**
 * The digest of the weights by which `wanted` knows them if it does: checkpoints of the first kind have the SHA-256 of the bytes.
 * @param wanted empty: none is known
 */
export async function digestLike(wanted: string, weights: PagedFloats, signal: AbortSignal): Promise<string> {
  const digest = await digestOf(weights, signal);
  if (wanted === "" || wanted === digest) return digest;
  const hash = createHash("sha256");
  for (const slice of slicesOf(weights, SLICE_BYTES)) {
    await setImmediate();
    signal.throwIfAborted();
    hash.update(slice);
  }
  return hash.digest("hex") === wanted ? wanted : digest;
}

function* slicesOf({ pages }: PagedFloats, sliceBytes: number): Generator<Uint8Array, void, undefined> {
  for (const bytes of pages.map(bytesOf)) {
    for (let at = 0; at < bytes.byteLength; at += sliceBytes) yield bytes.subarray(at, at + sliceBytes);
  }
}
