import { createHash } from "node:crypto";
import { BlockDigest } from "@segue/runtime";
import { updateHashes } from "./hashed-file.js";
import type { Manifest } from "./manifest.js";

/** The digest over a checkpoint: weights, moments, outer momentum, then lane states and cursor. */
export interface CheckpointDigest {
  /** The next bytes of the vectors. */
  readonly vectors: (bytes: Uint8Array) => Promise<void>;
  /** What comes behind them. */
  readonly rest: (bytes: Uint8Array) => Promise<void>;
  /** Hex; after the first vector it is that of the weights. */
  readonly soFar: () => Promise<string>;
}

/** Of the kind that a manifest's format has: of bytes, or of blocks (docs/design/cluster-protocol.md). */
export function checkpointDigest(format: Manifest["format"], vectorBytes: number): CheckpointDigest {
  if (format === 2) {
    const digest = new BlockDigest(vectorBytes);
    return {
      vectors: (bytes) => digest.update(bytes),
      rest: (bytes) => digest.append(bytes),
      soFar: () => digest.soFar(),
    };
  }
  const hash = createHash("sha256");
  const update = (bytes: Uint8Array): Promise<void> => updateHashes([hash], bytes);
  return { vectors: update, rest: update, soFar: async () => hash.copy().digest("hex") };
}
