import { referenceDevice } from "../src/devices/reference/reference-device.js";
import type { CpuDevice } from "../src/devices/cpu/cpu-device.js";
import { DEVICE_CASES } from "./devices-cases.js";
import { assertAgrees, CPU_VARIANTS, cpuVariant, resultsOn } from "./devices-support.js";

for (const variant of CPU_VARIANTS) {
  describe(`cpu device (${variant}) against the reference device`, () => {
    let device: CpuDevice | undefined;

    before(async function () {
      this.timeout(120_000);
      device = await cpuVariant(variant, 2);
      if (!device) this.skip();
    });
    after(() => device?.close());

    for (const [name, run] of Object.entries(DEVICE_CASES)) {
      it(`agrees: ${name}`, () => assertAgrees(resultsOn(device!, run), resultsOn(referenceDevice, run)));
    }
  });
}
