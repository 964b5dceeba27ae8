import assert from "node:assert/strict";
import { SLICE_BLOCK_FLOATS } from "@segue/core";
import { referenceDevice } from "../src/devices/reference/reference-device.js";
import type { CpuDevice } from "../src/devices/cpu/cpu-device.js";
import { DEVICE_CASES } from "./devices-cases.js";
import { assertAgrees, benchOf, CPU_VARIANTS, cpuVariant, resultsOn } from "./devices-support.js";
import { noise } from "./native-support.js";
import { forgettingHeads } from "./support/forgetting-heads.js";

for (const variant of CPU_VARIANTS) {
  describe(`cpu device (${variant}) against the reference device`, () => {
    let device: CpuDevice | undefined;

    before(async function () {
      device = await cpuVariant(variant, 2);
      if (!device) this.skip();
    });
    after(() => device?.close());

    it("multiplies each row as if it were alone", () => {
      const [m, n, k] = [40, 75, 300];
      const product = (rows: number): Float32Array => {
        const bench = benchOf(device!);
        const out = bench.poison(rows * n);
        device!.matmul({ m: rows, n, k, a: bench.noise("a", m * k), b: bench.noise("b", n * k), transposeB: true, out });
        return out;
      };
      const all = product(m);
      for (const rows of [1, 2, 3, 7, 8, 12, 33]) assert.deepEqual(product(rows), all.subarray(0, rows * n), `${rows} rows`);
    });

    it("gives the gradient of A of every head, however fast it forgets, to float32 rounding", () => {
      const right = resultsOn(referenceDevice, forgettingHeads)["dALog"]!;
      for (const [head, value] of resultsOn(device!, forgettingHeads)["dALog"]!.entries()) {
        const off = Math.abs(value / right[head]! - 1);
        assert.ok(off < 3e-5, `head ${head}: ${value} is off by ${off}`);
      }
    });

    it("sums squares within blocks, so that slices that begin with one are part of the whole", () => {
      const length = 3 * SLICE_BLOCK_FLOATS + 5;
      const floats = Float32Array.from(noise("x", length));
      const squares = new Float32Array(8);
      device!.squaresOfBlocks(floats.subarray(0, SLICE_BLOCK_FLOATS), squares.subarray(0, 2));
      device!.squaresOfBlocks(floats.subarray(SLICE_BLOCK_FLOATS), squares.subarray(2));
      assert.equal(device!.sumOfBlocks(squares), device!.sumOfSquares(floats));
    });

    for (const [name, run] of Object.entries(DEVICE_CASES)) {
      it(`agrees: ${name}`, () => assertAgrees(resultsOn(device!, run), resultsOn(referenceDevice, run)));
    }
  });
}
