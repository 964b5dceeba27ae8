import type { AttachedWorker } from "./attached-worker.js";

/** A worker's GPU, and what it is doing as of its last heartbeat; what its driver does not tell is absent. */
export interface GpuStatus {
  readonly ordinal: number;
  readonly name: string;
  readonly uuid: string;
  readonly driverVersion: string;
  readonly memoryBytes: number;
  /** By all processes on it. */
  readonly memoryUsedBytes?: number | undefined;
  readonly utilisationPercent?: number | undefined;
  readonly temperatureCelsius?: number | undefined;
}

/** undefined without a GPU. */
export function gpuStatus({ hello, gpuLoad }: Pick<AttachedWorker, "hello" | "gpuLoad">): GpuStatus | undefined {
  if (!hello.gpu) return undefined;
  const { ordinal, name, uuid, driverVersion, memoryBytes } = hello.gpu;
  const { memoryUsedBytes, utilisationPercent, temperatureCelsius } = gpuLoad ?? {};
  return {
    ordinal,
    name,
    uuid,
    driverVersion,
    memoryBytes: Number(memoryBytes),
    memoryUsedBytes: memoryUsedBytes === undefined ? undefined : Number(memoryUsedBytes),
    utilisationPercent,
    temperatureCelsius,
  };
}
