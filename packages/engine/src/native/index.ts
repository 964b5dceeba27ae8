import { SegueError, type ModelSpec } from "@segue/core";
import { openCpuDevice } from "../devices/cpu/cpu-device.js";
import { referenceDevice } from "../devices/reference/reference-device.js";
import type { Engine, EngineOptions } from "../engine.js";
import { DeviceEngine } from "./device-engine.js";

/**
 * The engine on this machine's processor; compiles its kernels on first use. It computes in float32 whatever `precision` says: no
 * processor would be faster in bf16 here, and float32 is at least as exact.
 * @throws SegueError ENGINE_UNAVAILABLE
 */
export async function createCpuEngine(options: EngineOptions): Promise<Engine> {
  return new DeviceEngine("cpu", await openCpuDevice(options.threads), options.model);
}

/** Whether {@link createCpuEngine} works here, and if not, what is missing. */
export async function probeCpu(threads: number): Promise<{ detail: string } | { reason: string }> {
  try {
    const device = await openCpuDevice(threads);
    device.close();
    return { detail: device.detail };
  } catch (e) {
    if (e instanceof SegueError) return { reason: e.message };
    throw e;
  }
}

/** The engine in float64 on the reference device: the specification, for tests and proofs. */
export function createReferenceEngine(model: ModelSpec): DeviceEngine<Float64Array, Int32Array> {
  return new DeviceEngine("cpu", referenceDevice, model);
}
