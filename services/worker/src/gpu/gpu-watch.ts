import { setTimeout as sleep } from "node:timers/promises";
import { NvmlGpu, type GpuSample } from "./nvml.js";

const SAMPLE_MS = 2_000;
/** A sample that is older says nothing about now. */
const STALE_MS = 5 * SAMPLE_MS;

/** Samples one GPU every two seconds. */
export class GpuWatch {
  readonly driverVersion: string;
  readonly #gpu: NvmlGpu;
  readonly #over = new AbortController();
  #last: { readonly sample: GpuSample; readonly atMs: number } | undefined;

  private constructor(gpu: NvmlGpu) {
    this.#gpu = gpu;
    this.driverVersion = gpu.driverVersion;
    void this.#run();
  }

  /** @returns undefined where NVML does not load or does not know the GPU */
  static async start(uuid: string, library?: string): Promise<GpuWatch | undefined> {
    const gpu = await NvmlGpu.open(uuid, library);
    return gpu && new GpuWatch(gpu);
  }

  /** undefined before the first sample, and when the GPU does not answer. */
  get latest(): GpuSample | undefined {
    return this.#last && performance.now() - this.#last.atMs < STALE_MS ? this.#last.sample : undefined;
  }

  /** Waits for nothing: a call that hangs would never end. Idempotent. */
  close(): void {
    this.#over.abort();
  }

  async #run(): Promise<void> {
    const { signal } = this.#over;
    while (!signal.aborted) {
      this.#last = { sample: await this.#gpu.sample(), atMs: performance.now() };
      await sleep(SAMPLE_MS, undefined, { signal, ref: false }).catch(() => undefined);
    }
    await this.#gpu.close();
  }
}
