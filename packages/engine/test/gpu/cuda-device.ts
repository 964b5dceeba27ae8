import { openCudaDevice, type CudaDevice } from "../../src/cuda/cuda-device.js";
import { referenceDevice } from "../../src/devices/reference/reference-device.js";
import { DEVICE_CASES } from "../devices-cases.js";
import { assertAgrees, resultsOn } from "../devices-support.js";

describe("cuda device (f32) against the reference device", () => {
  let device: CudaDevice;

  before(() => {
    device = openCudaDevice("f32");
  });
  after(() => device.close());

  for (const [name, run] of Object.entries(DEVICE_CASES)) {
    it(`agrees: ${name}`, () => assertAgrees(resultsOn(device, run), resultsOn(referenceDevice, run)));
  }
});
