import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { BlockDigest } from "../src/index.js";

const BLOCK_BYTES = 4 * 2 ** 20;
const sha256 = (bytes: Uint8Array): Buffer => createHash("sha256").update(bytes).digest();

describe("digests of the second kind", () => {
  const vectorBytes = 2 * BLOCK_BYTES + 12;
  const vectors = randomBytes(3 * vectorBytes);
  const [states, cursor] = [randomBytes(3_000_000), Buffer.from("{}")];

  /** As the protocol says it, in one go. */
  function expected(upTo: number): ReturnType<typeof createHash> {
    const hash = createHash("sha256");
    for (let vector = 0; vector < upTo; vector++) {
      for (let at = 0; at < vectorBytes; at += BLOCK_BYTES) {
        const begin = vector * vectorBytes + at;
        hash.update(sha256(vectors.subarray(begin, begin + Math.min(BLOCK_BYTES, vectorBytes - at))));
      }
    }
    return hash;
  }

  it("are a hash over the hashes of blocks, then over what follows, however the bytes come", async () => {
    const whole = expected(3).update(states).update(cursor).digest("hex");
    for (const pieceBytes of [1_000_001, BLOCK_BYTES, 2 * BLOCK_BYTES, vectors.byteLength]) {
      const digest = new BlockDigest(vectorBytes);
      const piece = new Uint8Array(pieceBytes);
      for (let at = 0; at < vectors.byteLength; at += pieceBytes) {
        const length = Math.min(pieceBytes, vectors.byteLength - at);
        piece.set(vectors.subarray(at, at + length));
        await digest.update(piece.subarray(0, length));
        piece.fill(0);
      }
      await digest.append(states);
      await digest.append(cursor);
      assert.equal(await digest.soFar(), whole);
    }
  });

  it("are the same of many bytes in shared memory, which threads hash where they lie", async () => {
    const floats = 17 * 2 ** 20 + 3;
    const vector = new Uint8Array(new SharedArrayBuffer(4 * floats));
    for (let at = 0; at < vector.byteLength; at += 4096) vector[at] = at >> 12;
    const copied = Uint8Array.from(vector);
    const digestOf = async (pieces: readonly Uint8Array[]): Promise<string> => {
      const digest = new BlockDigest(vector.byteLength);
      for (const piece of pieces) await digest.update(piece);
      return digest.soFar();
    };
    const wanted = await digestOf([copied]);
    assert.equal(await digestOf([vector]), wanted);
    // Two vectors in one piece, cut where no block ends.
    const twice = new Uint8Array(new SharedArrayBuffer(2 * vector.byteLength));
    twice.set(vector);
    twice.set(vector, vector.byteLength);
    const cut = vector.byteLength + 5;
    assert.equal(await digestOf([twice.subarray(0, cut), twice.subarray(cut)]), await digestOf([copied, copied]));
    vector[4 * 2 ** 20] = 1;
    assert.notEqual(await digestOf([vector]), wanted);
  });

  it("begin with that of the first vector", async () => {
    const digest = new BlockDigest(vectorBytes);
    await digest.update(vectors.subarray(0, vectorBytes));
    assert.equal(await digest.soFar(), expected(1).digest("hex"));
    await digest.update(vectors.subarray(vectorBytes));
    assert.equal(await digest.soFar(), expected(3).digest("hex"));
  });

  it("are refused in the middle of a vector", async () => {
    const digest = new BlockDigest(vectorBytes);
    await digest.update(vectors.subarray(0, vectorBytes + 1));
    await assert.rejects(digest.soFar(), /ends after 1/);
  });
});
