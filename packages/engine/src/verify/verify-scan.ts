import { setImmediate } from "node:timers/promises";
import { SegueError } from "@segue/core";
import { availableEngines, type EngineName } from "../create-engine.js";
import type { Device } from "../devices/device.js";
import { referenceDevice } from "../devices/reference/reference-device.js";
import { relativeError } from "./relative-error.js";
import { runScan } from "./run-scan.js";
import { SCAN_INPUTS, type ScanCase, type ScanCaseShape, type ScanResults } from "./scan-case.js";
import { VERIFY_LIMITS } from "./verify-engine.js";

/** Largest relative error of the reference device, whose arithmetic is float64 and whose inputs are float32. */
const REFERENCE_LIMIT = 1e-6;

/** The cut run has this many segments; the last comes out shorter. */
const SEGMENTS = 3;

export interface ScanMeasurement {
  readonly device: "reference" | "cpu" | "cuda";
  /** Number of the scan in the folder. */
  readonly scan: number;
  /** In one segment, or cut into several with the state carried and its gradient carried back. */
  readonly run: "whole" | "cut";
  /** "y", "final_state" or "gradient <input>". */
  readonly quantity: string;
  /** Relative L2; not a number where the device's values are none. */
  readonly error: number;
  readonly limit: number;
  readonly pass: boolean;
}

export interface ScanReport {
  readonly engine: { readonly name: "cpu" | "cuda"; readonly detail: string };
  readonly scans: readonly ScanCaseShape[];
  readonly passed: boolean;
  readonly measurements: readonly ScanMeasurement[];
}

/**
 * Compares the scan of an engine's device, and that of the float64 reference, with golden values.
 * @throws SegueError ENGINE_UNAVAILABLE, also for an engine without a scan of its own; the reason of `signal` once it aborts
 */
export async function verifyScan(
  choice: EngineName | "auto",
  threads: number,
  cases: readonly ScanCase[],
  signal?: AbortSignal,
): Promise<ScanReport> {
  const name = await engineWithScan(choice);
  const measurements = await measureDevice("reference", referenceDevice, cases, signal);
  const check = async <F, I>(device: Device<F, I>): Promise<string> => {
    try {
      measurements.push(...(await measureDevice(name, device, cases, signal)));
      return device.detail;
    } finally {
      device.close();
    }
  };
  const detail =
    name === "cpu"
      ? await check(await (await import("../devices/cpu/cpu-device.js")).openCpuDevice(threads))
      : await check((await import("../cuda/cuda-device.js")).openCudaDevice("f32"));
  return {
    engine: { name, detail },
    scans: cases.map(({ shape }) => shape),
    passed: measurements.every(({ pass }) => pass),
    measurements,
  };
}

async function engineWithScan(choice: EngineName | "auto"): Promise<"cpu" | "cuda"> {
  if (choice === "cpu" || choice === "cuda") return choice;
  if (choice === "tfjs") throw unavailable("Engine tfjs has no scan of its own; verify a model with it, or take --engine cpu");
  const offers = (await availableEngines()).filter(({ name }) => name !== "tfjs");
  const working = offers.find(({ reason }) => reason === undefined)?.name;
  if (working === "cpu" || working === "cuda") return working;
  throw unavailable(`No engine with a scan works here (${offers.map(({ name, reason }) => `${name}: ${reason}`).join("; ")})`);
}

/** Every quantity of every case, whole and cut; exported for devices that are no engine's. */
export async function measureDevice<F, I>(
  name: ScanMeasurement["device"],
  device: Device<F, I>,
  cases: readonly ScanCase[],
  signal?: AbortSignal,
): Promise<ScanMeasurement[]> {
  const measurements: ScanMeasurement[] = [];
  for (const [scan, scanCase] of cases.entries()) {
    const { tokens } = scanCase.shape;
    for (const [run, segmentTokens] of [
      ["whole", tokens],
      ["cut", Math.ceil(tokens / SEGMENTS)],
    ] as const) {
      await setImmediate();
      signal?.throwIfAborted();
      const of = { device: name, scan, run };
      measurements.push(...compare(of, runScan(device, scanCase, segmentTokens), scanCase.golden));
    }
  }
  return measurements;
}

function compare(
  of: Pick<ScanMeasurement, "device" | "scan" | "run">,
  actual: ScanResults,
  golden: ScanResults,
): ScanMeasurement[] {
  const limits = of.device === "reference" ? { outputs: REFERENCE_LIMIT, gradients: REFERENCE_LIMIT } : VERIFY_LIMITS;
  const measure = (quantity: string, values: Float32Array, expected: Float32Array, limit: number): ScanMeasurement => {
    const error = relativeError(values, expected);
    return { ...of, quantity, error, limit, pass: error <= limit };
  };
  return [
    measure("y", actual.y, golden.y, limits.outputs),
    measure("final_state", actual.finalState, golden.finalState, limits.outputs),
    ...SCAN_INPUTS.map((name) => measure(`gradient ${name}`, actual.gradients[name], golden.gradients[name], limits.gradients)),
  ];
}

function unavailable(message: string): SegueError {
  return new SegueError("ENGINE_UNAVAILABLE", message, { status: "FAILED_PRECONDITION" });
}
