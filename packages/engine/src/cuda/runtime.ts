import koffi from "koffi";
import { SegueError } from "@segue/core";
import { KernelCompiler, readCudaSources, type Defines } from "./compiler.js";
import { describeGpu, Driver, type Address, type Gpu } from "./driver.js";
import { KERNELS, type KernelName } from "./kernels.js";
import { CopyStream, type CopyOut } from "./copy-stream.js";
import { DeviceMemory } from "./memory.js";
import type { Copying } from "../devices/device.js";
import type { Watch } from "../exchange/device-sharing.js";
import { pollUntil } from "../exchange/pause.js";
import { Staging } from "./staging.js";

const MEGABYTE = 2 ** 20;
const NON_BLOCKING = 1;
const MOST_STAGED_BYTES = 16 * MEGABYTE;
const DYNAMIC_SHARED_BYTES = 8;
/** What a block gets without asking. */
const SHARED_BYTES_UNASKED = 48 * 1024;
const CAPTURE_THREAD_LOCAL = 1;
const MOST_ARGUMENTS = 40;
const NOT_READY = 600;
/** No timing: waits are cheaper. */
const DISABLE_TIMING = 2;

export interface Launch {
  readonly grid: readonly [x: number, y?: number, z?: number];
  readonly block: readonly [x: number, y?: number];
  readonly sharedBytes?: number;
  readonly defines?: Defines;
}

export interface Spent {
  ms: number;
  calls: number;
}

interface LoadedKernel {
  readonly handle: Address;
  sharedBytes: number;
}

interface Graph {
  readonly generation: number;
  readonly executable: Address;
}

/** One GPU: its memory, one stream of work, kernels compiled for it, and recorded stretches of work. */
export class CudaRuntime {
  readonly driver: Driver;
  readonly gpu: Gpu;
  readonly compiler: KernelCompiler;
  readonly stream: Address;
  readonly #modules = new Map<string, Address>();
  readonly #kernels = new Map<string, LoadedKernel>();
  readonly #graphs = new Map<string, Graph | "seen">();
  /** Values of a launch, eight bytes each, and where they are. */
  readonly #values = new DataView(new ArrayBuffer(8 * MOST_ARGUMENTS));
  readonly #pointers: BigUint64Array;
  readonly #staging: Staging;
  readonly #copies: CopyStream;
  readonly #memory: DeviceMemory;
  /** Changes when memory is released, after which recorded work may not run. */
  #generation = 0;
  #capturing = false;
  #watch: Watch | undefined;
  readonly #waitEvent: Address;
  #spent: Map<string, Spent> | undefined;
  #closed = false;

  /**
   * @param mostBytes of device memory
   * @throws SegueError ENGINE_UNAVAILABLE
   */
  constructor(ordinal: number, env: NodeJS.ProcessEnv, mostBytes = Infinity) {
    this.driver = new Driver();
    this.gpu = describeGpu(this.driver, ordinal);
    this.compiler = new KernelCompiler(readCudaSources(), this.gpu.computeCapability, env);
    this.driver.call("cuCtxSetCurrent", this.driver.result("cuDevicePrimaryCtxRetain", this.gpu.ordinal));
    this.stream = this.driver.result("cuStreamCreate", NON_BLOCKING);
    this.#staging = new Staging(this.driver, (event) => this.#wait(event));
    this.#copies = new CopyStream(this.driver, (event) => this.#wait(event));
    this.#waitEvent = this.driver.result("cuEventCreate", DISABLE_TIMING);
    this.#memory = new DeviceMemory(this.driver, this.gpu.name, mostBytes, () => {
      this.synchronize();
      this.#dropGraphs();
    });
    const first = koffi.address(this.#values.buffer);
    this.#pointers = BigUint64Array.from({ length: MOST_ARGUMENTS }, (_, i) => first + BigInt(8 * i));
  }

  get memory(): Pick<DeviceMemory, "bytes" | "peakBytes" | "freeBytes"> {
    return this.#memory;
  }

  /**
   * Zeroed device memory.
   * @throws SegueError DEVICE_OUT_OF_MEMORY
   */
  allocate(bytes: number): Address {
    if (bytes === 0) return 0;
    const address = this.#memory.take(bytes);
    this.fill(address, 0, Math.ceil(bytes / 4));
    return address;
  }

  /** Waits for the work under way; what was recorded is forgotten. */
  release(address: Address): void {
    if (!this.#closed) this.#memory.release(address);
  }

  /** Waits for nothing. What was recorded stays: only for memory that its keys name. */
  recycle(address: Address): void {
    if (!this.#closed) this.#memory.recycle(address);
  }

  /** Small uploads wait for nothing: what is in `from` now gets there in its turn. */
  upload(from: ArrayBufferView, to: Address): void {
    const bytes = from.byteLength;
    if (bytes === 0) return;
    if (bytes > MOST_STAGED_BYTES) return this.driver.call("cuMemcpyHtoDAsync_v2", to, from, bytes, this.stream);
    const slot = this.#staging.take(bytes);
    slot.view.set(new Uint8Array(from.buffer, from.byteOffset, bytes));
    this.driver.call("cuMemcpyHtoDAsync_v2", to, slot.view, bytes, this.stream);
    this.#staging.record(slot, this.stream);
    this.#staging.giveBack(slot);
  }

  /** Waits for all work before. Straight to its place: by way of pinned memory takes longer for large vectors, as measured. */
  download(from: Address, to: ArrayBufferView): void {
    // The copy itself cannot be given up.
    if (this.#watch) this.synchronize();
    if (to.byteLength > 0) this.driver.call("cuMemcpyDtoHAsync_v2", to, from, to.byteLength, this.stream);
    this.synchronize();
  }

  /** A download in its turn. @returns waits for it */
  downloadLater(from: Address, to: ArrayBufferView): () => void {
    const bytes = to.byteLength;
    const slot = this.#staging.take(bytes);
    this.driver.call("cuMemcpyDtoHAsync_v2", slot.view, from, bytes, this.stream);
    this.#staging.record(slot, this.stream);
    return () => {
      this.#staging.wait(slot);
      new Uint8Array(to.buffer, to.byteOffset, bytes).set(slot.view.subarray(0, bytes));
      this.#staging.giveBack(slot);
    };
  }

  /** Downloads beside the work that comes after. */
  copyOut(copies: readonly CopyOut[]): Copying {
    return this.#copies.copyOut(copies, this.stream);
  }

  copy(from: Address, to: Address, bytes: number): void {
    if (bytes > 0) this.driver.call("cuMemcpyDtoDAsync_v2", to, from, bytes, this.stream);
  }

  /** Sets 32-bit words. */
  fill(address: Address, bits: number, words: number): void {
    if (words > 0) this.driver.call("cuMemsetD32Async", address, bits, words, this.stream);
  }

  /** Waits for all work. @throws what the watch's check throws */
  synchronize(): void {
    if (!this.#watch) return this.driver.call("cuStreamSynchronize", this.stream);
    this.driver.call("cuEventRecord", this.#waitEvent, this.stream);
    this.#wait(this.#waitEvent);
  }

  /** From now on every wait can be given up. */
  watch(watch: Watch | undefined): void {
    this.#watch = watch;
  }

  /** An event behind the work so far. */
  mark(): Address {
    const event = this.driver.result("cuEventCreate", 0);
    this.driver.call("cuEventRecord", event, this.stream);
    return event;
  }

  /** Milliseconds between two marks, once both have passed; they are used up. */
  elapsedMs(from: Address, to: Address): number {
    return this.#elapsed(from, to);
  }

  /** Appends a kernel to the stream; arguments as {@link KERNELS} says. */
  launch(name: KernelName, { grid, block, sharedBytes = 0, defines = {} }: Launch, args: readonly number[]): void {
    const [gridX, gridY = 1, gridZ = 1] = grid;
    if (gridX === 0 || gridY === 0 || gridZ === 0) return;
    const { source, parameters } = KERNELS[name];
    const kernel = this.#kernel(name, source, defines);
    if (sharedBytes > kernel.sharedBytes) {
      this.driver.call("cuFuncSetAttribute", kernel.handle, DYNAMIC_SHARED_BYTES, sharedBytes);
      kernel.sharedBytes = sharedBytes;
    }
    if (args.length !== parameters.length) throw new Error(`${name} takes ${parameters.length} arguments, not ${args.length}`);
    for (let i = 0; i < args.length; i++) this.#setArgument(i, parameters[i]!, args[i]!);
    this.measured(name, () => {
      this.driver.call(
        "cuLaunchKernel",
        ...[kernel.handle, gridX, gridY, gridZ, block[0], block[1] ?? 1, 1, sharedBytes, this.stream],
        ...[this.#pointers, 0],
      );
    });
  }

  /**
   * Runs the work that `enqueue` appends. The second time it is recorded, from then on the record is replayed: `enqueue` must do the same
   * for the same key, on the same memory, and may neither allocate, nor upload, nor wait.
   */
  replay(key: string, enqueue: () => void): void {
    if (this.#capturing || this.#spent) return enqueue();
    const known = this.#graphs.get(key);
    if (known === undefined || (known !== "seen" && known.generation !== this.#generation)) {
      enqueue();
      this.#graphs.set(key, "seen");
    } else {
      const graph = known === "seen" ? this.#record(enqueue) : known;
      this.#graphs.set(key, graph);
      this.driver.call("cuGraphLaunch", graph.executable, this.stream);
    }
  }

  /** Milliseconds on the GPU of everything that `work` launches, by name. Nothing is replayed meanwhile. */
  profile(work: () => void): Map<string, Spent> {
    const spent = new Map<string, Spent>();
    this.#spent = spent;
    try {
      work();
      this.#settle();
    } finally {
      this.#spent = undefined;
    }
    return spent;
  }

  /** Runs `enqueue`, which appends one piece of work, and notes its time under `name` while profiling. */
  measured(name: string, enqueue: () => void): void {
    if (!this.#spent) return enqueue();
    const [start, end] = [this.driver.result("cuEventCreate", 0), this.driver.result("cuEventCreate", 0)];
    this.driver.call("cuEventRecord", start, this.stream);
    enqueue();
    this.driver.call("cuEventRecord", end, this.stream);
    this.#pending.push({ name, start, end });
  }

  readonly #pending: { name: string; start: Address; end: Address }[] = [];

  /** Milliseconds on the GPU that `work` takes. */
  time(work: () => void): number {
    const [start, end] = [this.driver.result("cuEventCreate", 0), this.driver.result("cuEventCreate", 0)];
    this.driver.call("cuEventRecord", start, this.stream);
    work();
    this.driver.call("cuEventRecord", end, this.stream);
    return this.#elapsed(start, end);
  }

  close(): void {
    if (this.#closed) return;
    this.#watch = undefined;
    this.synchronize();
    this.driver.call("cuEventDestroy_v2", this.#waitEvent);
    this.#copies.close();
    this.#staging.close();
    this.#memory.close();
    for (const module of this.#modules.values()) this.driver.call("cuModuleUnload", module);
    this.driver.call("cuStreamDestroy_v2", this.stream);
    this.driver.call("cuDevicePrimaryCtxRelease_v2", this.gpu.ordinal);
    this.#closed = true;
  }

  /** A watch that ends a wait is over: what the work waited for was let go, so that it ends. */
  #wait(event: Address): void {
    const watch = this.#watch;
    if (!watch) return this.driver.call("cuEventSynchronize", event);
    try {
      pollUntil(() => this.#hasPassed(event), watch.check);
    } catch (failure) {
      this.#watch = undefined;
      watch.letGo();
      throw failure;
    }
  }

  #hasPassed(event: Address): boolean {
    const status = this.driver.attempt("cuEventQuery", event);
    if (status !== 0 && status !== NOT_READY) this.driver.call("cuEventQuery", event);
    return status === 0;
  }

  #settle(): void {
    for (const { name, start, end } of this.#pending.splice(0)) {
      const entry = this.#spent?.get(name) ?? { ms: 0, calls: 0 };
      entry.ms += this.#elapsed(start, end);
      entry.calls++;
      this.#spent?.set(name, entry);
    }
  }

  #elapsed(start: Address, end: Address): number {
    this.#wait(end);
    const ms = new Float32Array(1);
    this.driver.call("cuEventElapsedTime", ms, start, end);
    this.driver.call("cuEventDestroy_v2", start);
    this.driver.call("cuEventDestroy_v2", end);
    return ms[0]!;
  }

  #setArgument(i: number, kind: string, value: number): void {
    const at = 8 * i;
    if (kind === "f") this.#values.setFloat32(at, value, true);
    else if (kind === "d") this.#values.setFloat64(at, value, true);
    else if (kind === "i") this.#values.setInt32(at, value, true);
    else this.#values.setBigInt64(at, BigInt(value), true);
  }

  #kernel(name: KernelName, source: string, defines: Defines): LoadedKernel {
    const variant = `${source} ${Object.entries(defines).join(" ")}`;
    const known = this.#kernels.get(`${variant} ${name}`);
    if (known) return known;
    let module = this.#modules.get(variant);
    if (module === undefined) {
      module = this.driver.result("cuModuleLoadData", this.compiler.cubin(source, defines));
      this.#modules.set(variant, module);
    }
    const kernel = { handle: this.driver.result("cuModuleGetFunction", module, name), sharedBytes: SHARED_BYTES_UNASKED };
    this.#kernels.set(`${variant} ${name}`, kernel);
    return kernel;
  }

  #record(enqueue: () => void): Graph {
    this.driver.call("cuStreamBeginCapture_v2", this.stream, CAPTURE_THREAD_LOCAL);
    this.#capturing = true;
    let graph: Address | undefined;
    try {
      enqueue();
    } finally {
      this.#capturing = false;
      const out = new BigUint64Array(1);
      if (this.driver.attempt("cuStreamEndCapture", this.stream, out) === 0) graph = Number(out[0]);
    }
    if (graph === undefined) throw new SegueError("CUDA_FAILED", "a step could not be recorded", { status: "INTERNAL" });
    const executable = this.driver.result("cuGraphInstantiateWithFlags", graph, 0);
    this.driver.call("cuGraphDestroy", graph);
    return { generation: this.#generation, executable };
  }

  #dropGraphs(): void {
    for (const graph of this.#graphs.values()) {
      if (graph !== "seen") this.driver.call("cuGraphExecDestroy", graph.executable);
    }
    this.#graphs.clear();
    this.#generation++;
  }
}
