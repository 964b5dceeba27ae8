import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { status } from "@grpc/grpc-js";
import type { Client } from "../client.js";
import type { Tensors } from "../gen/segue/v1/tensors_pb.js";
import { RpcError } from "../rpc-error.js";
import { pullTensor } from "./pull.js";

/** Pulled and written at a time: bounds memory, whatever the file's size. */
const RANGE_BYTES = 32 * 2 ** 20;

/** What a manifest says of a file. */
export interface FileRecord {
  readonly bytes: number;
  /** Hex. */
  readonly sha256: string;
}

/**
 * Pulls a tensor of bytes into a new file, flushes it, and compares it with what the manifest says.
 * @throws RpcError DATA_LOSS (CHECKPOINT_DAMAGED); what pullTensor throws; errors of the file system
 */
export async function pullFile(
  client: Client<typeof Tensors>,
  ref: string,
  path: string,
  { bytes, sha256 }: FileRecord,
  signal?: AbortSignal,
): Promise<void> {
  const hash = createHash("sha256");
  const file = await open(path, "wx");
  try {
    for (let offset = 0; offset < bytes; offset += RANGE_BYTES) {
      const length = Math.min(RANGE_BYTES, bytes - offset);
      const { data } = await pullTensor(client, ref, { offset, length, ...(signal ? { signal } : {}) });
      hash.update(data);
      await file.writeFile(data);
    }
    await file.sync();
  } finally {
    await file.close();
  }
  if (hash.digest("hex") !== sha256) {
    throw new RpcError(status.DATA_LOSS, "CHECKPOINT_DAMAGED", `${ref} does not have the digest of the manifest.`);
  }
}
