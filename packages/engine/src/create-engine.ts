import { SegueError } from "@segue/core";
import type { Engine, EngineOptions, GpuDescription } from "./engine.js";
import { loadTensorFlow } from "./tfjs/tensorflow.js";

export type EngineName = "cuda" | "cpu" | "tfjs";

export interface EngineOffer {
  readonly name: EngineName;
  /** For people, for example "cpu (AVX-512, 2 threads)"; empty when the engine does not work here. */
  readonly detail: string;
  /** Why it does not work on this machine. */
  readonly reason?: string;
  /** Of engines on a GPU. */
  readonly gpu?: GpuDescription;
}

type Probed = { readonly detail: string; readonly gpu?: GpuDescription } | { readonly reason: string };

/** Fastest first: the order in which `auto` tries them. */
const ENGINES: readonly EngineName[] = ["cuda", "cpu", "tfjs"];

/**
 * Every engine, fastest first, each tried for real on this machine: the first offer without a reason is what `auto` takes. `threads`: what
 * an engine would be given; 0: as many as there are cores. `gpu`: which of the visible GPUs.
 */
export async function availableEngines(threads = 0, gpu = 0): Promise<EngineOffer[]> {
  const offers: EngineOffer[] = [];
  for (const name of ENGINES) offers.push(await offer(name, threads, gpu));
  return offers;
}

/** How many GPUs this process sees; 0 where the engine `cuda` does not work. */
export async function usableGpus(): Promise<number> {
  const { gpu } = await offer("cuda", 0, 0);
  return gpu?.visible ?? 0;
}

/**
 * Opens an engine. Nothing of the others is loaded, save that `auto` tries the faster ones first.
 * @throws SegueError ENGINE_UNAVAILABLE with the reason; for `auto` with those of all engines
 */
export async function createEngine(choice: EngineName | "auto", options: EngineOptions): Promise<Engine> {
  if (choice !== "auto") return open(choice, options);
  const reasons: string[] = [];
  for (const name of ENGINES) {
    const { reason } = await offer(name, options.threads, options.gpu);
    if (reason === undefined) return open(name, options);
    reasons.push(`${name}: ${reason}`);
  }
  throw unavailable(`No engine works on this machine (${reasons.join("; ")})`);
}

async function offer(name: EngineName, threads: number, gpu: number | undefined): Promise<EngineOffer> {
  return { name, detail: "", ...(await probe(name, threads, gpu)) };
}

async function probe(name: EngineName, threads: number, gpu: number | undefined): Promise<Probed> {
  switch (name) {
    case "cuda":
      return (await import("./cuda/index.js")).probeCuda(gpu);
    case "cpu":
      return (await import("./native/index.js")).probeCpu(threads);
    case "tfjs":
      try {
        return { detail: (await loadTensorFlow()).detail };
      } catch (cause) {
        if (cause instanceof SegueError) return { reason: cause.message };
        throw cause;
      }
  }
}

async function open(name: EngineName, options: EngineOptions): Promise<Engine> {
  switch (name) {
    case "cuda":
      return (await import("./cuda/index.js")).createCudaEngine(options);
    case "cpu":
      return (await import("./native/index.js")).createCpuEngine(options);
    case "tfjs":
      return (await import("./tfjs/tfjs-engine.js")).createTfjsEngine(options);
  }
}

function unavailable(message: string): SegueError {
  return new SegueError("ENGINE_UNAVAILABLE", message, { status: "FAILED_PRECONDITION" });
}
