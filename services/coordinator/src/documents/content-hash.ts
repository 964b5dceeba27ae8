import { createHash, type Hash } from "node:crypto";

/** Documents are hashed and checked in stretches of this many bytes, counted from where each begins. */
export const STRETCH_BYTES = 64 << 10;

export interface ContentHashes {
  /** SHA-256 over the lengths and the stretches' hashes of all documents in turn; hex. */
  readonly digest: string;
  /** The first 64 bits of the SHA-256 of every stretch of every document in turn: what is read for training is compared with it. */
  readonly checks: BigUint64Array;
}

/** Hashes the documents of one file in the pass that indexes it: their bytes once, in stretches. */
export class ContentHash {
  readonly #digest = createHash("sha256");
  #checks = new BigUint64Array(16);
  #count = 0;
  #stretch: Hash | undefined;
  #stretchBytes = 0;
  #documentBytes = 0;

  /** Bytes of the present document. */
  update(bytes: Uint8Array): void {
    this.#documentBytes += bytes.length;
    for (let at = 0; at < bytes.length;) {
      const size = Math.min(bytes.length - at, STRETCH_BYTES - this.#stretchBytes);
      this.#stretch ??= createHash("sha256");
      this.#stretch.update(bytes.subarray(at, at + size));
      this.#stretchBytes += size;
      at += size;
      if (this.#stretchBytes === STRETCH_BYTES) this.#endStretch();
    }
  }

  endDocument(): void {
    this.#endStretch();
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(this.#documentBytes));
    this.#digest.update(length);
    this.#documentBytes = 0;
  }

  /** After the last document. */
  finish(): ContentHashes {
    return { digest: this.#digest.digest("hex"), checks: this.#checks.slice(0, this.#count) };
  }

  #endStretch(): void {
    if (!this.#stretch) return;
    const hash = this.#stretch.digest();
    this.#digest.update(hash);
    if (this.#count === this.#checks.length) {
      const larger = new BigUint64Array(2 * this.#count);
      larger.set(this.#checks);
      this.#checks = larger;
    }
    this.#checks[this.#count++] = checkOf(hash);
    this.#stretch = undefined;
    this.#stretchBytes = 0;
  }
}

/** Whether these bytes are the stretch whose check this is. */
export function isStretch(bytes: Uint8Array, check: bigint | undefined): boolean {
  return checkOf(createHash("sha256").update(bytes).digest()) === check;
}

/** How many stretches a document of this many bytes has. */
export function stretchesOf(bytes: number): number {
  return Math.ceil(bytes / STRETCH_BYTES);
}

function checkOf(hash: Buffer): bigint {
  return hash.readBigUInt64LE(0);
}
