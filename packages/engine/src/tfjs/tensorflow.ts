import { createRequire } from "node:module";
import { dirname } from "node:path";
import type * as util from "node:util";
import { SegueError } from "@segue/core";
import type * as tfjs from "@tensorflow/tfjs";
import type { KernelBackend, TensorInfo } from "@tensorflow/tfjs";
import type * as tfjsWasm from "@tensorflow/tfjs-backend-wasm";

/** The TensorFlow.js namespace, whichever package it came from. */
export type TensorFlow = typeof tfjs;

/** Ways of running TensorFlow.js, fastest first. */
export const TENSORFLOW_VARIANTS = ["node-gpu", "node", "wasm", "js"] as const;
export type TensorFlowVariant = (typeof TENSORFLOW_VARIANTS)[number];

export interface LoadedTensorFlow {
  readonly tf: TensorFlow;
  readonly variant: TensorFlowVariant;
  /** For people, for example "tfjs (wasm, SIMD)". */
  readonly detail: string;
}

const requireFromHere = createRequire(import.meta.url);

/**
 * Loads TensorFlow.js with the first variant that works. Nothing of it is imported before, and nothing is printed: production mode
 * silences its banner. The backend is a global of the thread, so a thread uses one variant for all its engines.
 * @throws SegueError ENGINE_UNAVAILABLE, with the reason of every variant tried
 */
export async function loadTensorFlow(variants: readonly TensorFlowVariant[] = TENSORFLOW_VARIANTS): Promise<LoadedTensorFlow> {
  const reasons: string[] = [];
  for (const variant of variants) {
    try {
      return await loadVariant(variant);
    } catch (cause) {
      reasons.push(`${variant}: ${firstLine(cause)}`);
    }
  }
  throw new SegueError("ENGINE_UNAVAILABLE", `TensorFlow.js does not load (${reasons.join("; ")})`, {
    status: "FAILED_PRECONDITION",
  });
}

async function loadVariant(variant: TensorFlowVariant): Promise<LoadedTensorFlow> {
  switch (variant) {
    case "node-gpu":
      return loadBinding(variant, "@tensorflow/tfjs-node-gpu");
    case "node":
      return loadBinding(variant, "@tensorflow/tfjs-node");
    case "wasm":
      return loadWasm();
    case "js":
      return select(loadCore(), variant, "cpu", "tfjs (plain JavaScript)");
  }
}

/** `@tensorflow/tfjs`, not `-core`: only the whole package registers gradients. */
function loadCore(): TensorFlow {
  return requireFromHere("@tensorflow/tfjs") as TensorFlow;
}

async function loadBinding(variant: "node" | "node-gpu", name: string): Promise<LoadedTensorFlow> {
  // The bindings call a function that Node 23 removed.
  const utilities = requireFromHere("node:util") as typeof util & { isNullOrUndefined?: (value: unknown) => boolean };
  utilities.isNullOrUndefined ??= (value) => value === null || value === undefined;
  return select(requireFromHere(name) as TensorFlow, variant, "tensorflow", `tfjs (${name})`);
}

async function loadWasm(): Promise<LoadedTensorFlow> {
  const tf = loadCore();
  const name = "@tensorflow/tfjs-backend-wasm";
  const wasm = requireFromHere(name) as typeof tfjsWasm;
  // The binaries lie beside the bundle; without this they would be looked for beside the program.
  wasm.setWasmPaths(`${dirname(requireFromHere.resolve(name))}/`);
  shareClones(tf);
  const simd = (await tf.env().getAsync("WASM_HAS_SIMD_SUPPORT")) === true;
  return withoutNewListeners(() => select(tf, "wasm", "wasm", `tfjs (wasm${simd ? ", SIMD" : ""})`));
}

/**
 * Lets clones on the WASM backend share memory, as on every other backend and as its own reshape does. Automatic differentiation
 * clones whatever it saves, so copying there costs a tenth of a step.
 */
function shareClones(tf: TensorFlow): void {
  tf.unregisterKernel("Identity", "wasm");
  tf.registerKernel({
    kernelName: "Identity",
    backendName: "wasm",
    kernelFunc: ({ inputs, backend }) => {
      const x = inputs["x"] as TensorInfo;
      (backend as KernelBackend).incRef(x.dataId);
      return { dataId: x.dataId, shape: x.shape, dtype: x.dtype };
    },
  });
}

/** The start of the WASM module hooks itself into the process's last resort for errors; that belongs to the program. */
async function withoutNewListeners<T>(start: () => Promise<T>): Promise<T> {
  const events = ["uncaughtException", "unhandledRejection"] as const;
  const before = events.map((event) => process.listeners(event as "beforeExit"));
  try {
    return await start();
  } finally {
    events.forEach((event, i) => {
      for (const listener of process.listeners(event as "beforeExit")) {
        if (!before[i]?.includes(listener)) process.removeListener(event, listener);
      }
    });
  }
}

async function select(tf: TensorFlow, variant: TensorFlowVariant, backend: string, detail: string): Promise<LoadedTensorFlow> {
  tf.enableProdMode();
  if (!(await tf.setBackend(backend))) throw new Error(`backend ${backend} does not start`);
  await tf.ready();
  return { tf, variant, detail };
}

function firstLine(cause: unknown): string {
  const message = cause instanceof Error ? cause.message : String(cause);
  return message.split("\n", 1)[0] ?? message;
}
