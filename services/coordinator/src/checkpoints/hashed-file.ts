import { createHash, type Hash } from "node:crypto";
import { open, type FileHandle } from "node:fs/promises";
import { setImmediate } from "node:timers/promises";

/** Bytes hashed without letting the event loop serve anybody else: about a millisecond. */
const HASH_SLICE_BYTES = 2 ** 20;

/** Feeds every hash, in slices, so that heartbeats get through between them. */
export async function updateHashes(hashes: readonly Hash[], bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.byteLength; at += HASH_SLICE_BYTES) {
    const slice = bytes.subarray(at, at + HASH_SLICE_BYTES);
    for (const hash of hashes) hash.update(slice);
    await setImmediate();
  }
}

/** A new file whose SHA-256 is known when it is complete. */
export class HashedFile {
  readonly #handle: FileHandle;
  readonly #hash = createHash("sha256");
  #bytes = 0;

  private constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  static async create(path: string): Promise<HashedFile> {
    return new HashedFile(await open(path, "wx"));
  }

  /** Appends. */
  async write(bytes: Uint8Array): Promise<void> {
    await updateHashes([this.#hash], bytes);
    for (let at = 0; at < bytes.byteLength;) at += (await this.#handle.write(bytes, at)).bytesWritten;
    this.#bytes += bytes.byteLength;
  }

  /** Flushes to the disk and closes. */
  async finish(): Promise<{ bytes: number; sha256: string }> {
    await this.#handle.sync();
    await this.#handle.close();
    return { bytes: this.#bytes, sha256: this.#hash.digest("hex") };
  }

  /** Closes without flushing, after an error. */
  async abandon(): Promise<void> {
    await this.#handle.close().catch(() => undefined);
  }
}

/** Takes the bytes of a file from `start` on, piece by piece. */
export interface DataSink {
  readonly start: number;
  readonly take: (bytes: Uint8Array) => Promise<void>;
}

/** Reads a file from start to end, feeding `whole` everything and `data` what it wants. @returns its length in bytes */
export async function hashFile(path: string, whole: Hash, data?: DataSink): Promise<number> {
  const handle = await open(path);
  try {
    const buffer = new Uint8Array(4 * 2 ** 20);
    for (let at = 0; ;) {
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, at);
      if (bytesRead === 0) return at;
      const bytes = buffer.subarray(0, bytesRead);
      await updateHashes([whole], bytes);
      if (data && at + bytesRead > data.start) await data.take(bytes.subarray(Math.max(0, data.start - at)));
      at += bytesRead;
    }
  } finally {
    await handle.close();
  }
}
