import koffi from "koffi";
import type { DeviceSharing, Mark, SharedFloats, Signals, SumOrder, Watch } from "../exchange/device-sharing.js";
import { exchangeUnavailable } from "../exchange/gradient-exchange.js";
import { SignalWords, WORD_BYTES } from "../exchange/signal-words.js";
import type { Address } from "./driver.js";
import type { CudaFloats } from "./floats.js";
import { loadDriver } from "./libraries.js";
import type { CudaOperations } from "./operations.js";
import type { CudaRuntime } from "./runtime.js";
import type { Scratch } from "./scratch.js";

const HANDLE_BYTES = 64;
/** Smaller allocations may share a stretch with others, and a handle names the stretch. */
const STRETCH_BYTES = 2 * 2 ** 20;
const PAGE_BYTES = 4096;
const PEER_ACCESS_WHEN_NEEDED = 1;
/** Seen by every context, and mapped for the GPU. */
const REGISTER_PORTABLE_MAPPED = 3;
const WAIT_UNTIL_AT_LEAST = 0;
const THREADS = 256;

const IPC_HANDLE = koffi.struct({ bytes: koffi.array("uint8", HANDLE_BYTES) });

const FUNCTIONS = {
  cuIpcGetMemHandle: ["void *", "uint64"],
  cuIpcOpenMemHandle_v2: ["void *", IPC_HANDLE, "uint"],
  cuIpcCloseMemHandle: ["uint64"],
  cuMemHostRegister_v2: ["uint64", "uint64", "uint"],
  cuMemHostUnregister: ["uint64"],
  cuMemHostGetDevicePointer_v2: ["void *", "uint64", "uint"],
  cuStreamWriteValue32_v2: ["uint64", "uint64", "uint", "uint"],
  cuStreamWaitValue32_v2: ["uint64", "uint64", "uint", "uint"],
} as const;

type FunctionName = keyof typeof FUNCTIONS;
type Argument = number | ArrayBufferView | { readonly bytes: number[] };

/**
 * Sharing between processes whose GPUs reach each other: memory by CUDA's IPC handles, order by 32-bit words in memory of the host that
 * streams write and wait for. A stream that waits holds up nobody else on the same GPU.
 */
export class CudaSharing implements DeviceSharing<CudaFloats> {
  readonly #runtime: CudaRuntime;
  readonly #operations: CudaOperations;
  readonly #scratch: Scratch;
  /** Memory that others were told of: they may still have it mapped, so it is used again instead of given back. */
  readonly #spare: { readonly address: Address; readonly bytes: number }[] = [];
  #functions: Record<FunctionName, (...args: Argument[]) => number> | undefined;

  constructor(runtime: CudaRuntime, operations: CudaOperations, scratch: Scratch) {
    this.#runtime = runtime;
    this.#operations = operations;
    this.#scratch = scratch;
  }

  share(length: number): SharedFloats<CudaFloats> {
    const wanted = Math.ceil((length * Float32Array.BYTES_PER_ELEMENT) / STRETCH_BYTES) * STRETCH_BYTES;
    const fitting = this.#spare.findIndex(({ bytes }) => bytes >= wanted && bytes <= 2 * wanted);
    const stretch = this.#spare.splice(fitting, fitting < 0 ? 0 : 1)[0] ?? {
      address: this.#runtime.allocate(wanted),
      bytes: wanted,
    };
    const { address } = stretch;
    this.#runtime.fill(address, 0, length);
    const handle = new Uint8Array(HANDLE_BYTES);
    this.#call("cuIpcGetMemHandle", handle, address);
    return {
      floats: { f32: address, bf16: 0, length },
      handle: `${length}/${Buffer.from(handle).toString("hex")}`,
      close: () => void this.#spare.push(stretch),
    };
  }

  open(handle: string): SharedFloats<CudaFloats> {
    const [length, hex] = handle.split("/");
    const out = new BigUint64Array(1);
    this.#call("cuIpcOpenMemHandle_v2", out, { bytes: [...Buffer.from(hex!, "hex")] }, PEER_ACCESS_WHEN_NEEDED);
    const address = Number(out[0]);
    return {
      floats: { f32: address, bf16: 0, length: Number(length) },
      handle,
      close: () => {
        // What is under way may still read it.
        this.#runtime.synchronize();
        this.#call("cuIpcCloseMemHandle", address);
      },
    };
  }

  signals(count: number): Signals {
    return this.#signalsOn(SignalWords.create(count));
  }

  openSignals(handle: string): Signals {
    return this.#signalsOn(SignalWords.open(handle));
  }

  sum(sources: readonly CudaFloats[], order: SumOrder, into: CudaFloats): void {
    const addresses = BigUint64Array.from(sources, ({ f32 }) => BigInt(f32));
    const at = this.#scratch.take("sum sources", Math.max(addresses.byteLength, 512));
    this.#runtime.upload(addresses, at);
    const vector = [into, ...sources].every(({ f32 }) => f32 % 16 === 0) ? 4 : 1;
    this.#operations.launch(
      "sum_nodes",
      {
        grid: [Math.ceil(into.length / (THREADS * vector))],
        block: [THREADS],
        defines: { SUM_OF_NODES: expression(order) },
      },
      ...[into.length, vector, at, into.f32],
    );
  }

  /** A bf16 copy beside the floats gets the same. */
  round({ f32, bf16, length }: CudaFloats): void {
    this.#operations.launch("round_in_place", { grid: [Math.ceil(length / THREADS)], block: [THREADS] }, length, f32, bf16);
  }

  /** The floats become what the bf16 copy beside them says. */
  widen({ f32, bf16, length }: CudaFloats): void {
    this.#operations.launch("widen_bf16", { grid: [Math.ceil(length / THREADS)], block: [THREADS] }, length, bf16, f32);
  }

  watch(watch: Watch | undefined): void {
    this.#runtime.watch(watch);
  }

  mark(): Mark {
    return this.#runtime.mark();
  }

  elapsedMs(from: Mark, to: Mark): number {
    return this.#runtime.elapsedMs(from, to);
  }

  #signalsOn(words: SignalWords): Signals {
    const { address, bytes, handle } = words.memory;
    const { stream } = this.#runtime;
    this.#call("cuMemHostRegister_v2", address, Math.ceil(bytes.length / PAGE_BYTES) * PAGE_BYTES, REGISTER_PORTABLE_MAPPED);
    const out = new BigUint64Array(1);
    this.#call("cuMemHostGetDevicePointer_v2", out, address, 0);
    const first = Number(out[0]);
    return {
      handle,
      set: (index, value) => words.set(index, value),
      read: (index) => words.get(index),
      // What the stream did before is seen by whoever sees the number.
      write: (index, value) => this.#call("cuStreamWriteValue32_v2", stream, first + index * WORD_BYTES, value, 0),
      wait: (index, value) => this.#call("cuStreamWaitValue32_v2", stream, first + index * WORD_BYTES, value, WAIT_UNTIL_AT_LEAST),
      close: () => {
        this.#runtime.synchronize();
        this.#call("cuMemHostUnregister", address);
        words.memory.close();
      },
    };
  }

  #call(name: FunctionName, ...args: Argument[]): void {
    const status = (this.#functions ??= loadFunctions())[name](...args);
    if (status !== 0) throw exchangeUnavailable(`GPUs cannot share memory here (${name}: CUDA error ${status})`);
  }
}

function loadFunctions(): Record<FunctionName, (...args: Argument[]) => number> {
  const library = loadDriver();
  try {
    return Object.fromEntries(
      Object.entries(FUNCTIONS).map(([name, parameters]) => [name, library.func(name, "int", [...parameters])]),
    ) as unknown as Record<FunctionName, (...args: Argument[]) => number>;
  } catch (cause) {
    throw exchangeUnavailable(`the NVIDIA driver is too old for GPUs to share memory: ${String(cause)}`, cause);
  }
}

/** For `cuda/sum-nodes.cu`, for example ((X(0)+X(1))+X(2)). */
function expression(order: SumOrder): string {
  return typeof order === "number" ? `X(${order})` : `(${expression(order[0])}+${expression(order[1])})`;
}
