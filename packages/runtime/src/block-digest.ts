import { createHash, webcrypto } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { sharedSha256 } from "./hash-threads.js";

/** 2^20 floats: fixed, since the digest depends on it. */
const BLOCK_BYTES = 4 * 2 ** 20;
/** Hashed at once, on Node's thread pool. */
const MOST_BLOCKS = 4;
/** From here on threads of their own are worth their start. */
const THREADED_BYTES = 16 * BLOCK_BYTES;
/** Hashed on the caller's thread without letting its event loop serve anybody else: about a millisecond. */
const SLICE_BYTES = 2 ** 20;

/**
 * The digest of the second kind (docs/design/cluster-protocol.md): SHA-256 over the SHA-256 of every block of 2^20 floats of every vector, each
 * vector beginning with a block of its own, and then over what is appended. However the bytes come in pieces and however many threads
 * hash, it is the same. Calls must not overlap.
 */
export class BlockDigest {
  readonly #vectorBytes: number;
  readonly #hash = createHash("sha256");
  readonly #hashing: Promise<ArrayBuffer | Uint8Array>[] = [];
  #block = new Uint8Array(0);
  #filled = 0;
  /** Of the vector at hand. */
  #taken = 0;

  /** @param vectorBytes of each vector */
  constructor(vectorBytes: number) {
    this.#vectorBytes = vectorBytes;
  }

  /** The next bytes of the vectors, which may be changed once this ends. Many in shared memory are hashed where they lie. */
  async update(bytes: Uint8Array): Promise<void> {
    const isThreaded = bytes.byteLength >= THREADED_BYTES && this.#filled === 0 && isShared(bytes);
    return isThreaded ? this.#hashShared(bytes) : this.#hashCopies(bytes);
  }

  async #hashShared(bytes: Uint8Array<SharedArrayBuffer>): Promise<void> {
    let at = 0;
    for (;;) {
      const blockBytes = Math.min(BLOCK_BYTES, this.#vectorBytes - this.#taken);
      if (at + blockBytes > bytes.byteLength) break;
      const hashing = sharedSha256(bytes.subarray(at, at + blockBytes));
      // Of several that fail the first counts.
      hashing.catch(() => undefined);
      this.#hashing.push(hashing);
      at += blockBytes;
      this.#taken = (this.#taken + blockBytes) % this.#vectorBytes;
    }
    const rest = bytes.subarray(at);
    while (this.#hashing.length > 0) await this.#takeOldest();
    await this.#hashCopies(rest);
  }

  async #hashCopies(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.byteLength;) {
      if (this.#filled === 0) this.#block = new Uint8Array(Math.min(BLOCK_BYTES, this.#vectorBytes - this.#taken));
      const part = bytes.subarray(at, at + this.#block.byteLength - this.#filled);
      this.#block.set(part, this.#filled);
      at += part.byteLength;
      this.#filled += part.byteLength;
      this.#taken = (this.#taken + part.byteLength) % this.#vectorBytes;
      if (this.#filled < this.#block.byteLength) continue;
      this.#hashing.push(webcrypto.subtle.digest("SHA-256", this.#block));
      this.#filled = 0;
      if (this.#hashing.length >= MOST_BLOCKS) await this.#takeOldest();
    }
  }

  /** What comes behind the vectors. */
  async append(bytes: Uint8Array): Promise<void> {
    await this.#settle();
    for (let at = 0; at < bytes.byteLength; at += SLICE_BYTES) {
      this.#hash.update(bytes.subarray(at, at + SLICE_BYTES));
      await setImmediate();
    }
  }

  /** Of what has come so far, which ends with a vector; hex. More may follow. */
  async soFar(): Promise<string> {
    await this.#settle();
    return this.#hash.copy().digest("hex");
  }

  async #settle(): Promise<void> {
    if (this.#filled > 0) throw new Error(`a vector of ${this.#vectorBytes} bytes ends after ${this.#taken}`);
    while (this.#hashing.length > 0) await this.#takeOldest();
  }

  async #takeOldest(): Promise<void> {
    const digest = await this.#hashing.shift();
    if (digest) this.#hash.update(new Uint8Array(digest));
  }
}

function isShared(bytes: Uint8Array): bytes is Uint8Array<SharedArrayBuffer> {
  return bytes.buffer instanceof SharedArrayBuffer;
}
