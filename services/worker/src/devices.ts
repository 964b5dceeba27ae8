import { SegueError } from "@segue/core";
import type { GpuDescription } from "@segue/engine";
import type { EngineChoice, EngineOffer } from "./compute/calls.js";
import { ComputeThread, defaultComputeModule } from "./compute/compute-thread.js";

export interface DeviceOptions {
  readonly engine: EngineChoice;
  readonly threads: number;
  /** Ordinal of the GPU among the visible ones. */
  readonly gpu: number;
  /** Path of NCCL's library, if the loader does not find it. */
  readonly ncclLibrary?: string | undefined;
  /** Module of the compute thread. @default the one with Segue's engines */
  readonly computeModule?: URL | undefined;
}

/** What this process can compute with. */
export interface Devices {
  /** Engines that load, best first; at least one. */
  readonly engines: readonly EngineOffer[];
  readonly gpu?: GpuDescription | undefined;
  /** For example "2.28.9"; empty without NCCL, or without a GPU. */
  readonly ncclVersion: string;
}

/**
 * Asks a compute thread of its own: libraries that fail to load must not take a job's thread with them.
 * @throws SegueError ENGINE_UNAVAILABLE when no engine loads
 */
export async function probeDevices(options: DeviceOptions): Promise<Devices> {
  const { computeModule = defaultComputeModule, engine, threads, gpu: ordinal, ncclLibrary: library } = options;
  const thread = new ComputeThread(computeModule);
  try {
    const offers = (await thread.call("probe", { threads, gpu: ordinal })).filter(
      ({ name }) => engine === "auto" || name === engine,
    );
    const engines = offers.filter(({ reason }) => reason === undefined);
    if (engines.length === 0) {
      const reasons = offers.map(({ name, reason }) => `${name}: ${reason ?? ""}`).join("; ");
      throw new SegueError("ENGINE_UNAVAILABLE", `No engine runs here (${reasons}).`, { status: "FAILED_PRECONDITION" });
    }
    const gpu = engines.find((offer) => offer.gpu)?.gpu;
    return { engines, gpu, ncclVersion: gpu ? await thread.call("ncclVersion", { library }) : "" };
  } finally {
    await thread.close();
  }
}
