import { SegueError } from "@segue/core";
import type { Engine, EngineOptions, GpuDescription } from "../engine.js";
import { DeviceEngine } from "../native/device-engine.js";
import { openCudaDevice } from "./cuda-device.js";

/**
 * The engine on one of this machine's visible GPUs.
 * @throws SegueError ENGINE_UNAVAILABLE, DEVICE_OUT_OF_MEMORY
 */
export async function createCudaEngine({ model, precision, gpu }: EngineOptions): Promise<Engine> {
  const device = openCudaDevice(precision, gpu);
  try {
    return new DeviceEngine("cuda", device, model);
  } catch (failure) {
    device.close();
    throw failure;
  }
}

/** Whether {@link createCudaEngine} works here and on which GPU, and if not, what is missing. */
export async function probeCuda(ordinal = 0): Promise<{ detail: string; gpu: GpuDescription } | { reason: string }> {
  try {
    const device = openCudaDevice("bf16", ordinal);
    device.close();
    const { name, uuid, memoryBytes, visible } = device.runtime.gpu;
    return { detail: device.detail, gpu: { name, uuid, memoryBytes, ordinal, visible } };
  } catch (e) {
    if (e instanceof SegueError) return { reason: e.message };
    throw e;
  }
}
