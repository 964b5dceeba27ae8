import koffi from "koffi";
import { ncclFailed, ncclUnavailable } from "./nccl-library.js";

const NOT_READY = 600;

type Call = (...args: (number | ArrayBufferView)[]) => number;

/** One GPU as NCCL needs it: a stream and two buffers, through CUDA's driver. The thread that creates it gets the GPU's primary context. */
export class GpuMemory {
  readonly stream: number;
  readonly #call: (name: string, ...args: (number | ArrayBufferView)[]) => void;
  readonly #query: Call;
  readonly #ordinal: number;
  readonly #buffers = new Map<string, { address: number; bytes: number }>();

  /** @throws SegueError NCCL_UNAVAILABLE without a driver or a GPU */
  constructor(ordinal: number) {
    const functions = openDriver();
    this.#call = (name, ...args) => {
      const status = functions(name)(...args);
      if (status !== 0) throw ncclFailed(`${name} failed with CUDA error ${status}`);
    };
    const status = functions("cuInit")(0);
    const count = new Int32Array(1);
    if (status === 0) this.#call("cuDeviceGetCount", count);
    if (status !== 0 || ordinal >= (count[0] ?? 0)) {
      throw ncclUnavailable(
        `sync.transport nccl needs GPU ${ordinal}; the NVIDIA driver finds ${count[0] ?? 0} (cuInit: ${status})`,
      );
    }
    this.#query = functions("cuStreamQuery");
    this.#ordinal = ordinal;
    const context = new BigUint64Array(1);
    this.#call("cuDevicePrimaryCtxRetain", context, ordinal);
    this.#call("cuCtxSetCurrent", Number(context[0]));
    const stream = new BigUint64Array(1);
    this.#call("cuStreamCreate", stream, 1);
    this.stream = Number(stream[0]);
  }

  /** Address of at least so many bytes, kept for the next call of this name. */
  buffer(name: string, bytes: number): number {
    const held = this.#buffers.get(name);
    if (held && held.bytes >= bytes) return held.address;
    if (held) this.#call("cuMemFree_v2", held.address);
    this.#buffers.delete(name);
    const address = new BigUint64Array(1);
    this.#call("cuMemAlloc_v2", address, Math.max(bytes, 4));
    this.#buffers.set(name, { address: Number(address[0]), bytes });
    return Number(address[0]);
  }

  upload(address: number, from: Float32Array): void {
    if (from.length > 0) this.#call("cuMemcpyHtoDAsync_v2", address, from, from.byteLength, this.stream);
  }

  download(into: Float32Array, address: number): void {
    if (into.length > 0) this.#call("cuMemcpyDtoHAsync_v2", into, address, into.byteLength, this.stream);
  }

  /** Whether everything on the stream is done. @throws SegueError NCCL_FAILED when the GPU failed */
  isIdle(): boolean {
    const status = this.#query(this.stream);
    if (status === 0 || status === NOT_READY) return status === 0;
    throw ncclFailed(`the GPU failed with CUDA error ${status}`);
  }

  close(): void {
    for (const { address } of this.#buffers.values()) this.#call("cuMemFree_v2", address);
    this.#buffers.clear();
    this.#call("cuStreamDestroy_v2", this.stream);
    this.#call("cuDevicePrimaryCtxRelease_v2", this.#ordinal);
  }
}

const PARAMETERS: Readonly<Record<string, string[]>> = {
  cuInit: ["uint"],
  cuDeviceGetCount: ["void *"],
  cuDevicePrimaryCtxRetain: ["void *", "int"],
  cuDevicePrimaryCtxRelease_v2: ["int"],
  cuCtxSetCurrent: ["uint64"],
  cuStreamCreate: ["void *", "uint"],
  cuStreamDestroy_v2: ["uint64"],
  cuStreamQuery: ["uint64"],
  cuMemAlloc_v2: ["void *", "uint64"],
  cuMemFree_v2: ["uint64"],
  cuMemcpyHtoDAsync_v2: ["uint64", "void *", "uint64", "uint64"],
  cuMemcpyDtoHAsync_v2: ["void *", "uint64", "uint64", "uint64"],
};

function openDriver(): (name: string) => Call {
  const open = () => {
    try {
      return koffi.load("libcuda.so.1");
    } catch (cause) {
      throw ncclUnavailable(
        "sync.transport nccl needs an NVIDIA GPU and its driver (libcuda.so.1 does not load); use grpc here",
        cause,
      );
    }
  };
  const library = open();
  const functions = Object.fromEntries(
    Object.entries(PARAMETERS).map(([name, parameters]) => [name, library.func(name, "int", parameters) as Call]),
  );
  return (name) => functions[name] as Call;
}
