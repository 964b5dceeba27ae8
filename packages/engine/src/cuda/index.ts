import { SegueError } from "@segue/core";
import type { Engine, EngineOptions } from "../engine.js";
import { DeviceEngine } from "../native/device-engine.js";
import { openCudaDevice } from "./cuda-device.js";

/**
 * The engine on this machine's first visible GPU (`CUDA_VISIBLE_DEVICES` says which those are).
 * @throws SegueError ENGINE_UNAVAILABLE, DEVICE_OUT_OF_MEMORY
 */
export async function createCudaEngine({ model, precision }: EngineOptions): Promise<Engine> {
  const device = openCudaDevice(precision);
  try {
    return new DeviceEngine("cuda", device, model);
  } catch (failure) {
    device.close();
    throw failure;
  }
}

/** Whether {@link createCudaEngine} works here, and if not, what is missing. */
export async function probeCuda(): Promise<{ detail: string } | { reason: string }> {
  try {
    const device = openCudaDevice("bf16");
    device.close();
    return { detail: device.detail };
  } catch (e) {
    if (e instanceof SegueError) return { reason: e.message };
    throw e;
  }
}
