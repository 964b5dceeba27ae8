import assert from "node:assert/strict";
import { referenceDevice } from "../src/devices/reference/reference-device.js";
import type { CpuDevice } from "../src/devices/cpu/cpu-device.js";
import { DEVICE_CASES } from "./devices-cases.js";
import { assertAgrees, benchOf, CPU_VARIANTS, cpuVariant, resultsOn, type DeviceCase } from "./devices-support.js";
import { noise } from "./native-support.js";

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
      const [lanes, tokens, heads, width] = [2, 300, 16, 16 * 16 + 32];
      const shape = { lanes, tokens, heads, headDim: 16, dState: 16, groups: 1, chunk: 256 };
      const [rows, stride] = [lanes * tokens, heads * 16 * 16];
      const run: DeviceCase = (b) => {
        const aLog_H = b.floats(Float32Array.from({ length: heads }, (_, head) => (head / (heads - 1)) * Math.log(64)));
        const dt_RH = b.floats(noise("dt", rows * heads, 0.3).map(Math.abs));
        const [skip_H, chunkStates_BKHPN] = [b.noise("skip", heads), b.poison(2 * lanes * stride)];
        const given = { ...shape, resets_R: undefined, xBC_RC: b.noise("xBC", rows * width, 0.7), dt_RH, aLog_H, skip_H };
        const state = { data: b.noise("state", lanes * stride), stride };
        b.device.scan({ ...given, chunkStates_BKHPN, state, y_RI: b.poison(rows * heads * 16) });
        const data = b.poison(heads);
        b.device.scanBackward({
          ...{ ...given, chunkStates_BKHPN, dY_RI: b.noise("dY", rows * heads * 16), dXBC_RC: b.poison(rows * width) },
          ...{ dDt_RH: b.poison(rows * heads), dALog_H: data, dSkip_H: b.poison(heads) },
          ...{
            dChunkStates_BKHPN: b.poison(2 * lanes * stride),
            stateGradient: { data: b.noise("dState", lanes * stride), stride },
          },
        });
        return { dALog: { data, length: heads } };
      };
      const right = resultsOn(referenceDevice, run)["dALog"]!;
      for (const [head, value] of resultsOn(device!, run)["dALog"]!.entries()) {
        const off = Math.abs(value / right[head]! - 1);
        assert.ok(off < 3e-5, `head ${head}: ${value} is off by ${off}`);
      }
    });

    for (const [name, run] of Object.entries(DEVICE_CASES)) {
      it(`agrees: ${name}`, () => assertAgrees(resultsOn(device!, run), resultsOn(referenceDevice, run)));
    }
  });
}
