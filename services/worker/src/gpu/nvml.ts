import koffi, { type LibraryHandle } from "koffi";

const SUCCESS = 0;
const TEXT_BYTES = 96;
const GPU_CORE = 0;

type Handle = bigint;
type Status = number;
type Argument = string | Handle | number | ArrayBufferView;
/** A call of NVML on a thread of its own: one that hangs, as on a GPU that has fallen off its bus, holds nobody up. */
type Call = (...args: Argument[]) => Promise<Status>;

/** What a GPU is doing; what it does not tell is absent. */
export interface GpuSample {
  readonly memoryUsedBytes?: number | undefined;
  /** Percent. */
  readonly utilisation?: number | undefined;
  readonly temperatureCelsius?: number | undefined;
}

const FUNCTIONS = {
  nvmlInit_v2: [],
  nvmlShutdown: [],
  nvmlSystemGetDriverVersion: ["void *", "uint"],
  nvmlDeviceGetHandleByUUID: ["str", "void *"],
  nvmlDeviceGetMemoryInfo: ["uint64", "void *"],
  nvmlDeviceGetUtilizationRates: ["uint64", "void *"],
  nvmlDeviceGetTemperature: ["uint64", "uint", "void *"],
} as const;

type Nvml = Record<keyof typeof FUNCTIONS, Call>;

/** One GPU through NVIDIA's management library, which counts GPUs in another order than CUDA and is asked by UUID. */
export class NvmlGpu {
  readonly driverVersion: string;
  readonly #calls: Nvml;
  readonly #handle: Handle;

  private constructor(calls: Nvml, driverVersion: string, handle: Handle) {
    this.#calls = calls;
    this.driverVersion = driverVersion;
    this.#handle = handle;
  }

  /**
   * @param uuid "GPU-...", of a whole GPU or of an instance (MIG)
   * @param path of the library; by the loader's path otherwise
   * @returns undefined where the library does not load or does not know the GPU
   */
  static async open(uuid: string, path = "libnvidia-ml.so.1"): Promise<NvmlGpu | undefined> {
    const calls = load(path);
    if (!calls || (await calls.nvmlInit_v2()) !== SUCCESS) return undefined;
    const handle = new BigUint64Array(1);
    for (const name of [uuid, uuid.replace(/^GPU-/, "MIG-")]) {
      if ((await calls.nvmlDeviceGetHandleByUUID(name, handle)) !== SUCCESS) continue;
      const version = new Uint8Array(TEXT_BYTES);
      const hasVersion = (await calls.nvmlSystemGetDriverVersion(version, version.length)) === SUCCESS;
      return new NvmlGpu(calls, hasVersion ? text(version) : "", handle[0]!);
    }
    await calls.nvmlShutdown();
    return undefined;
  }

  async sample(): Promise<GpuSample> {
    // total, free, used
    const memory = new BigUint64Array(3);
    // of the GPU, of its memory
    const utilisation = new Uint32Array(2);
    const temperature = new Uint32Array(1);
    const { nvmlDeviceGetMemoryInfo, nvmlDeviceGetUtilizationRates, nvmlDeviceGetTemperature } = this.#calls;
    const hasMemory = (await nvmlDeviceGetMemoryInfo(this.#handle, memory)) === SUCCESS;
    const hasUtilisation = (await nvmlDeviceGetUtilizationRates(this.#handle, utilisation)) === SUCCESS;
    const hasTemperature = (await nvmlDeviceGetTemperature(this.#handle, GPU_CORE, temperature)) === SUCCESS;
    return {
      memoryUsedBytes: hasMemory ? Number(memory[2]) : undefined,
      utilisation: hasUtilisation ? utilisation[0] : undefined,
      temperatureCelsius: hasTemperature ? temperature[0] : undefined,
    };
  }

  async close(): Promise<void> {
    await this.#calls.nvmlShutdown();
  }
}

function load(path: string): Nvml | undefined {
  try {
    const library = koffi.load(path);
    return Object.fromEntries(
      Object.entries(FUNCTIONS).map(([name, parameters]) => [name, onAnotherThread(library, name, parameters)]),
    ) as Nvml;
  } catch {
    return undefined;
  }
}

function onAnotherThread(library: LibraryHandle, name: string, parameters: readonly string[]): Call {
  const call = library.func(name, "int", [...parameters]);
  return (...args) =>
    new Promise((resolve, reject) => {
      call.async(...args, (error: Error | null, status: Status) => (error ? reject(error) : resolve(status)));
    });
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes.subarray(0, bytes.indexOf(0))).toString("utf8");
}
