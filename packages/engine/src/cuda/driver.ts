import koffi, { type LibraryHandle } from "koffi";
import { SegueError } from "@segue/core";
import { loadDriver, unavailable } from "./libraries.js";

/** Handles and device addresses are below 2^53, so plain numbers hold them. */
export type Address = number;

export const OUT_OF_MEMORY = 2;

/** Parameters of the driver's functions; handles and addresses are 64-bit numbers. */
const FUNCTIONS = {
  cuInit: ["uint"],
  cuDriverGetVersion: ["void *"],
  cuDeviceGetCount: ["void *"],
  cuDeviceGet: ["void *", "int"],
  cuDeviceGetName: ["void *", "int", "int"],
  cuDeviceGetUuid_v2: ["void *", "int"],
  cuDeviceTotalMem_v2: ["void *", "int"],
  cuDeviceGetAttribute: ["void *", "int", "int"],
  cuDevicePrimaryCtxRetain: ["void *", "int"],
  cuDevicePrimaryCtxRelease_v2: ["int"],
  cuCtxSetCurrent: ["uint64"],
  cuMemGetInfo_v2: ["void *", "void *"],
  cuMemAlloc_v2: ["void *", "uint64"],
  cuMemFree_v2: ["uint64"],
  cuMemAllocHost_v2: ["void *", "uint64"],
  cuMemFreeHost: ["uint64"],
  cuMemHostRegister_v2: ["void *", "uint64", "uint"],
  cuMemHostUnregister: ["void *"],
  cuMemcpyHtoDAsync_v2: ["uint64", "void *", "uint64", "uint64"],
  cuMemcpyDtoHAsync_v2: ["void *", "uint64", "uint64", "uint64"],
  cuMemcpyDtoDAsync_v2: ["uint64", "uint64", "uint64", "uint64"],
  cuMemsetD32Async: ["uint64", "uint", "uint64", "uint64"],
  cuStreamCreate: ["void *", "uint"],
  cuStreamDestroy_v2: ["uint64"],
  cuStreamSynchronize: ["uint64"],
  cuStreamWaitEvent: ["uint64", "uint64", "uint"],
  cuStreamBeginCapture_v2: ["uint64", "int"],
  cuStreamEndCapture: ["uint64", "void *"],
  cuGraphInstantiateWithFlags: ["void *", "uint64", "uint64"],
  cuGraphLaunch: ["uint64", "uint64"],
  cuGraphDestroy: ["uint64"],
  cuGraphExecDestroy: ["uint64"],
  cuEventCreate: ["void *", "uint"],
  cuEventDestroy_v2: ["uint64"],
  cuEventRecord: ["uint64", "uint64"],
  cuEventSynchronize: ["uint64"],
  cuEventQuery: ["uint64"],
  cuEventElapsedTime: ["void *", "uint64", "uint64"],
  cuModuleLoadData: ["void *", "void *"],
  cuModuleUnload: ["uint64"],
  cuModuleGetFunction: ["void *", "uint64", "str"],
  cuFuncSetAttribute: ["uint64", "int", "int"],
  cuLaunchKernel: [...["uint64", "uint", "uint", "uint", "uint", "uint", "uint", "uint", "uint64", "void *"], "uint64"],
} as const;

type FunctionName = keyof typeof FUNCTIONS;
type Argument = number | bigint | string | ArrayBufferView | null;

/** CUDA's driver library. */
export class Driver {
  readonly #functions: Record<FunctionName, (...args: Argument[]) => number>;
  readonly #describe: (status: number) => string;

  /** @throws SegueError ENGINE_UNAVAILABLE without a driver or a GPU */
  constructor(library: LibraryHandle = loadDriver()) {
    try {
      this.#functions = Object.fromEntries(
        Object.entries(FUNCTIONS).map(([name, parameters]) => [name, library.func(name, "int", [...parameters])]),
      ) as unknown as Record<FunctionName, (...args: Argument[]) => number>;
    } catch (cause) {
      throw unavailable(`the NVIDIA driver is too old: ${String(cause)}`, cause);
    }
    const errorName = library.func("cuGetErrorName", "int", ["int", koffi.out(koffi.pointer("str"))]) as (
      status: number,
      name: (string | null)[],
    ) => number;
    this.#describe = (status) => {
      const name: (string | null)[] = [null];
      errorName(status, name);
      return name[0] ?? `error ${status}`;
    };
    const status = this.#functions.cuInit(0);
    if (status !== 0) throw unavailable(`the NVIDIA driver finds no GPU that it can use (cuInit: ${this.#describe(status)})`);
  }

  /** Calls a function. @throws SegueError CUDA_FAILED naming function and error */
  call(name: FunctionName, ...args: Argument[]): void {
    const status = this.#functions[name](...args);
    if (status !== 0) throw new SegueError("CUDA_FAILED", `${name}: ${this.#describe(status)}`, { status: "INTERNAL" });
  }

  /** The status of a call that may fail. */
  attempt(name: FunctionName, ...args: Argument[]): number {
    return this.#functions[name](...args);
  }

  /** What a function writes to its first parameter, a 64-bit number. */
  result(name: FunctionName, ...args: Argument[]): Address {
    const out = new BigUint64Array(1);
    this.call(name, out, ...args);
    return Number(out[0]);
  }

  /** What a function writes to its first parameter, an int. */
  integer(name: FunctionName, ...args: Argument[]): number {
    const out = new Int32Array(1);
    this.call(name, out, ...args);
    return out[0]!;
  }
}

const ATTRIBUTES = { processors: 16, major: 75, minor: 76, sharedBytesPerBlock: 97 } as const;

export interface Gpu {
  readonly name: string;
  readonly uuid: string;
  readonly memoryBytes: number;
  /** How many GPUs this process sees. */
  readonly visible: number;
  /** For example 90. */
  readonly computeCapability: number;
  readonly processors: number;
  readonly sharedBytesPerBlock: number;
  readonly ordinal: number;
}

/** bf16 matrix instructions, asynchronous copies: Ampere and later. */
const OLDEST_CAPABILITY = 80;

/** @throws SegueError ENGINE_UNAVAILABLE if it is too old */
export function describeGpu(driver: Driver, ordinal: number): Gpu {
  const visible = driver.integer("cuDeviceGetCount");
  if (visible <= ordinal) throw unavailable(`there is no GPU ${ordinal}; this process sees ${visible} (counted from 0)`);
  const device = driver.integer("cuDeviceGet", ordinal);
  const bytes = new Uint8Array(256);
  driver.call("cuDeviceGetName", bytes, bytes.length, device);
  const name = Buffer.from(bytes.subarray(0, bytes.indexOf(0))).toString("utf8");
  const attribute = (which: keyof typeof ATTRIBUTES): number => driver.integer("cuDeviceGetAttribute", ATTRIBUTES[which], device);
  const computeCapability = attribute("major") * 10 + attribute("minor");
  if (computeCapability < OLDEST_CAPABILITY) {
    const wanted = `${OLDEST_CAPABILITY / 10}.0`;
    throw unavailable(
      `${name} has compute capability ${computeCapability / 10}; the kernels need ${wanted} (A100, RTX 30) or newer`,
    );
  }
  const uuid = new Uint8Array(16);
  driver.call("cuDeviceGetUuid_v2", uuid, device);
  return {
    name,
    uuid: uuidText(uuid),
    memoryBytes: driver.result("cuDeviceTotalMem_v2", device),
    visible,
    computeCapability,
    processors: attribute("processors"),
    sharedBytesPerBlock: attribute("sharedBytesPerBlock"),
    ordinal: device,
  };
}

/** As nvidia-smi writes it. */
function uuidText(bytes: Uint8Array): string {
  const hex = Buffer.from(bytes).toString("hex");
  return `GPU-${[hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-")}`;
}
