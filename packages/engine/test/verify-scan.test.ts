import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { decodeSafetensors, encodeSafetensors, type SafetensorsTensor } from "@segue/core";
import { referenceDevice } from "../src/devices/reference/reference-device.js";
import { readScanCases, SCAN_INPUTS, type ScanCase } from "../src/verify/scan-case.js";
import { measureDevice, verifyScan, type ScanMeasurement } from "../src/verify/verify-scan.js";

const GOLDEN = fileURLToPath(new URL("golden/ssd", import.meta.url));

const readCases = async (folder: string): Promise<ScanCase[]> => (await readScanCases(folder)) ?? assert.fail("no scans");
const failures = (measurements: readonly ScanMeasurement[]): string[] =>
  measurements.filter(({ pass }) => !pass).map(({ device, scan, run, quantity }) => `${device} ${scan} ${run} ${quantity}`);

describe("verification of a scan", () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "segue-verify-scan-"));
    await cp(GOLDEN, folder, { recursive: true });
  });
  afterEach(() => rm(folder, { recursive: true }));

  const change = async (edit: (tensors: Map<string, SafetensorsTensor>) => void): Promise<void> => {
    const tensors = decodeSafetensors(await readFile(join(GOLDEN, "golden.safetensors")));
    edit(tensors);
    await writeFile(join(folder, "golden.safetensors"), encodeSafetensors([...tensors.values()]));
  };
  /** Makes the last value of a tensor 1 % larger. */
  const corrupt = (name: string): Promise<void> =>
    change((tensors) => {
      const tensor = tensors.get(name)!;
      const values = new Float32Array(Uint8Array.from(tensor.data).buffer);
      values[values.length - 1]! *= 1.01;
      tensors.set(name, { ...tensor, data: new Uint8Array(values.buffer) });
    });

  it("passes the reference and the cpu device, whole and cut, with the state's gradient carried back", async () => {
    const report = await verifyScan("cpu", 2, await readCases(GOLDEN));
    assert.deepEqual(failures(report.measurements), []);
    assert.equal(report.passed, true);
    assert.equal(report.engine.name, "cpu");
    // Devices, scans, runs, quantities.
    assert.equal(report.measurements.length, 2 * 3 * 2 * (2 + SCAN_INPUTS.length));
    assert.deepEqual(
      report.scans.map(({ lanes, tokens, groups }) => [lanes, tokens, groups]),
      [
        [2, 50, 1],
        [1, 61, 2],
        [1, 130, 1],
      ],
    );
  });

  for (const [tensor, quantity] of [
    ["1.y", "y"],
    ["0.final_state", "final_state"],
    ...SCAN_INPUTS.map((name) => [`2.grad.${name}`, `gradient ${name}`]),
  ] as [string, string][]) {
    it(`fails on a wrong value in ${tensor} and nothing else`, async () => {
      await corrupt(tensor);
      const measurements = await measureDevice("reference", referenceDevice, await readCases(folder));
      const scan = tensor[0]!;
      assert.deepEqual(
        failures(measurements),
        ["whole", "cut"].map((run) => `reference ${scan} ${run} ${quantity}`),
      );
    });
  }

  it("leaves folders of models to others, and those that are none", async () => {
    assert.equal(await readScanCases(fileURLToPath(new URL("golden/tiny", import.meta.url))), undefined);
    assert.equal(await readScanCases(join(folder, "missing")), undefined);
  });

  it("refuses a folder that is not whole, with what is wrong", async () => {
    const refused = async (edit: (tensors: Map<string, SafetensorsTensor>) => void, message: RegExp): Promise<void> => {
      await change(edit);
      await assert.rejects(readScanCases(folder), { code: "VERIFY_FOLDER_INVALID", message });
    };
    await refused((tensors) => tensors.delete("1.grad.dt_bias"), /it has no 1\.grad\.dt_bias/);
    await refused((tensors) => tensors.set("0.D", { ...tensors.get("0.D")!, shape: [2, 2] }), /0\.D has shape \[2, 2\], not \[4\]/);
    await refused((tensors) => {
      const decay = tensors.get("0.A")!;
      tensors.set("0.A", { ...decay, data: new Uint8Array(decay.data.length) });
    }, /0\.A must be negative/);
  });

  it("refuses an engine without a scan of its own, and stops when it is told to", async () => {
    const cases = await readCases(GOLDEN);
    await assert.rejects(verifyScan("tfjs", 1, cases), { code: "ENGINE_UNAVAILABLE", message: /no scan of its own/ });
    await assert.rejects(verifyScan("cpu", 1, cases, AbortSignal.abort(new Error("enough"))), /enough/);
  });
});
