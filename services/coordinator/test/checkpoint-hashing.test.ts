import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hashFile } from "../src/checkpoints/hashed-file.js";

describe("hashing of checkpoints", () => {
  it("holds up nothing else: heartbeats get through while a big file is verified", async () => {
    const folder = await mkdtemp(join(tmpdir(), "segue-hash-"));
    try {
      const bytes = randomBytes(128 * 2 ** 20);
      await writeFile(join(folder, "big"), bytes);
      const [whole, data] = [createHash("sha256"), createHash("sha256")];
      // In bytes, not in milliseconds, which a busy machine decides.
      let [inTurn, most, isOver] = [0, 0, false];
      const nextTurn = (): void => {
        inTurn = 0;
        if (!isOver) setImmediate(nextTurn);
      };
      nextTurn();
      const update = whole.update.bind(whole);
      whole.update = (slice: string | NodeJS.ArrayBufferView) => {
        inTurn += typeof slice === "string" ? slice.length : slice.byteLength;
        most = Math.max(most, inTurn);
        return update(slice as NodeJS.ArrayBufferView);
      };
      await hashFile(join(folder, "big"), whole, { start: 1_000, take: async (slice) => void data.update(slice) });
      isOver = true;
      assert.equal(whole.digest("hex"), createHash("sha256").update(bytes).digest("hex"));
      assert.equal(data.digest("hex"), createHash("sha256").update(bytes.subarray(1_000)).digest("hex"));
      assert.ok(most > 0 && most <= 2 * 2 ** 20, `${most} bytes hashed in one turn of the event loop`);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
