import assert from "node:assert/strict";
import { availableEngines, type GpuDescription } from "@segue/engine";
import { NvmlGpu } from "../../src/gpu/nvml.js";

/** On a real GPU: what CUDA and NVML, which count in orders of their own, say of the same one. */
describe("the load of real GPUs", () => {
  const gpus: GpuDescription[] = [];

  before(async () => {
    for (let ordinal = 0, visible = 1; ordinal < visible; ordinal++) {
      const { gpu, reason } = (await availableEngines(1, ordinal)).find(({ name }) => name === "cuda")!;
      assert.ok(gpu, reason);
      ({ visible } = gpu);
      gpus.push(gpu);
    }
    console.log(`      ${gpus.length} GPU(s): ${gpus.map(({ name, uuid }) => `${name} ${uuid}`).join(", ")}`);
  });

  it("is told for each, by its UUID", async () => {
    assert.equal(new Set(gpus.map(({ uuid }) => uuid)).size, gpus.length);
    for (const { uuid, memoryBytes } of gpus) {
      const nvml = await NvmlGpu.open(uuid);
      assert.ok(nvml, `NVML does not know ${uuid}`);
      assert.match(nvml.driverVersion, /^\d+\.\d+/);
      const { memoryUsedBytes, utilisation, temperatureCelsius } = await nvml.sample();
      await nvml.close();
      console.log(
        `      driver ${nvml.driverVersion}: ${memoryUsedBytes} of ${memoryBytes} B, ${utilisation} %, ${temperatureCelsius} C`,
      );
      assert.ok(memoryUsedBytes! > 0 && memoryUsedBytes! < 1.05 * memoryBytes);
      assert.ok(utilisation === undefined || utilisation <= 100);
      assert.ok(temperatureCelsius === undefined || (temperatureCelsius > 5 && temperatureCelsius < 120));
    }
  });
});
