import type { WorkerInfo } from "@segue/protocol";
import { formatBytes } from "./format.js";
import type { Column } from "./table.js";

/** A worker's GPU and what it is doing, as JSON can carry it. */
export interface GpuView {
  readonly ordinal: number;
  readonly name: string;
  readonly uuid: string;
  readonly memoryBytes: number;
  readonly driverVersion: string;
  /** These are absent where the driver does not tell. Of all processes on the GPU. */
  readonly memoryUsedBytes?: number;
  readonly utilisationPercent?: number;
  readonly temperatureCelsius?: number;
}

export function gpuView({ gpu, gpuLoad }: Pick<WorkerInfo, "gpu" | "gpuLoad">): { readonly gpu?: GpuView } {
  if (!gpu) return {};
  const { ordinal, name, uuid, memoryBytes, driverVersion } = gpu;
  const { memoryUsedBytes, utilisationPercent, temperatureCelsius } = gpuLoad ?? {};
  return {
    gpu: {
      ordinal,
      name,
      uuid,
      memoryBytes: Number(memoryBytes),
      driverVersion,
      ...(memoryUsedBytes === undefined ? {} : { memoryUsedBytes: Number(memoryUsedBytes) }),
      ...(utilisationPercent === undefined ? {} : { utilisationPercent }),
      ...(temperatureCelsius === undefined ? {} : { temperatureCelsius }),
    },
  };
}

export const gpuColumns: readonly Column<{ readonly gpu?: GpuView }>[] = [
  { title: "GPU", value: ({ gpu }) => (gpu ? String(gpu.ordinal) : ""), right: true },
  { title: "GPU MEMORY", value: ({ gpu }) => (gpu ? memoryText(gpu) : ""), right: true },
  { title: "GPU USE", value: ({ gpu }) => withUnit(gpu?.utilisationPercent, "%"), right: true },
  { title: "GPU TEMP", value: ({ gpu }) => withUnit(gpu?.temperatureCelsius, "°C"), right: true },
];

function memoryText({ memoryUsedBytes, memoryBytes }: GpuView): string {
  const total = formatBytes(memoryBytes);
  return memoryUsedBytes === undefined ? total : `${formatBytes(memoryUsedBytes)} of ${total}`;
}

function withUnit(value: number | undefined, unit: string): string {
  return value === undefined ? "" : `${value} ${unit}`;
}
