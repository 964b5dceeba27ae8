import koffi, { type LibraryHandle } from "koffi";
import { SegueError } from "@segue/core";

/** What a C function takes: numbers, memory of this process, null, and the context. */
export type NativeArgument = number | bigint | Float32Array | Int32Array | null;
export type NativeOperation = (...args: NativeArgument[]) => void;

const FLOATS = "float *";
const INTS = "int *";
const CONTEXT = "void *";

const SEGMENT = ["int", "int"];
const SCAN = ["int", "int", "int", "int", "int"];
const COLUMNS = [FLOATS, "int"];
const LANE_PARTS = [FLOATS, "double"];

/** Parameters after the context, in the order of the C++ definitions in `native/`. */
const OPERATIONS = {
  matmul: ["int", "int", "int", FLOATS, "int", FLOATS, "int", FLOATS, "int"],
  gather_rows: ["int", "int", FLOATS, INTS, FLOATS],
  scatter_add_rows: ["int", "int", FLOATS, INTS, FLOATS],
  add_norm: ["int", "int", "float", FLOATS, FLOATS, FLOATS, FLOATS, FLOATS, FLOATS],
  add_norm_backward: ["int", "int", FLOATS, FLOATS, FLOATS, FLOATS, FLOATS, "int", FLOATS, FLOATS],
  conv: [...SEGMENT, "int", "int", INTS, ...COLUMNS, FLOATS, FLOATS, ...LANE_PARTS, FLOATS, FLOATS],
  conv_backward: [
    ...SEGMENT,
    "int",
    "int",
    INTS,
    ...COLUMNS,
    FLOATS,
    FLOATS,
    FLOATS,
    FLOATS,
    ...COLUMNS,
    FLOATS,
    FLOATS,
    ...LANE_PARTS,
  ],
  time_steps: ["int", "int", "float", "float", ...COLUMNS, FLOATS, "float", FLOATS],
  time_steps_backward: ["int", "int", "float", "float", ...COLUMNS, FLOATS, FLOATS, ...COLUMNS, FLOATS],
  scan: [...SEGMENT, ...SCAN, INTS, FLOATS, FLOATS, FLOATS, FLOATS, "double", "float", ...LANE_PARTS, FLOATS, FLOATS],
  scan_backward: [
    ...[...SEGMENT, ...SCAN, INTS, FLOATS, FLOATS, FLOATS, FLOATS, FLOATS, FLOATS],
    ...[FLOATS, FLOATS, FLOATS, FLOATS, FLOATS, ...LANE_PARTS],
  ],
  gated_norm: ["int", "int", "int", "int", "float", FLOATS, ...COLUMNS, FLOATS, FLOATS, FLOATS],
  gated_norm_backward: [
    ...["int", "int", "int", "int", FLOATS, ...COLUMNS, FLOATS, FLOATS],
    ...[FLOATS, FLOATS, ...COLUMNS, FLOATS, FLOATS],
  ],
  head_loss: ["int", "int", "int", FLOATS, FLOATS, INTS, FLOATS, FLOATS, FLOATS, FLOATS],
  add: ["double", FLOATS, FLOATS],
  squares_of_blocks: ["double", FLOATS, FLOATS],
  adamw: ["double", FLOATS, FLOATS, FLOATS, FLOATS, "double", "double", "double", "double", "double", "double", "int"],
  state_statistics: ["int", "int", "int", ...LANE_PARTS, FLOATS],
  lane_sums: [...SEGMENT, ...COLUMNS, "int", "int", "int", ...LANE_PARTS],
  mix_heads: ["int", "int", "int", FLOATS, ...LANE_PARTS, ...LANE_PARTS, "int"],
} as const;

export type OperationName = keyof typeof OPERATIONS;

/** One instruction set of the library, with a context of its own. */
export interface CpuLibrary {
  readonly variant: string;
  readonly operations: Readonly<Record<OperationName, NativeOperation>>;
  sumOfSquares(floats: Float32Array): number;
  scratchBytes(): number;
  close(): void;
}

/** Names of the variants that this processor runs, the fastest first. */
function runnableVariants(library: LibraryHandle): string[] {
  return (library.func("segue_variants", "str", [])() as string).split(" ");
}

/**
 * Opens a compiled library for `threads` threads.
 * @param wanted name of a variant; absent: the fastest that this processor runs
 * @throws SegueError ENGINE_UNAVAILABLE if the library cannot be loaded or the variant cannot run here
 */
export function openLibrary(path: string, threads: number, wanted: string | undefined): CpuLibrary {
  let library: LibraryHandle;
  try {
    library = koffi.load(path);
  } catch (e) {
    throw new SegueError("ENGINE_UNAVAILABLE", `cannot load ${path}: ${String(e)}`, { status: "FAILED_PRECONDITION", cause: e });
  }
  const variants = runnableVariants(library);
  const variant = wanted ?? variants[0]!;
  if (!variants.includes(variant)) {
    throw new SegueError(
      "ENGINE_UNAVAILABLE",
      `this processor cannot run the CPU variant ${variant}; it runs ${variants.join(", ")}`,
      {
        status: "FAILED_PRECONDITION",
      },
    );
  }
  let context = library.func("segue_open", CONTEXT, ["int"])(threads) as bigint | null;
  const closeContext = library.func("segue_close", "void", [CONTEXT]) as (context: bigint) => void;
  const scratchBytes = library.func("segue_scratch_bytes", "double", [CONTEXT]) as (context: bigint) => number;
  const sumOfSquares = library.func(`segue_sum_of_squares_${variant}`, "double", [CONTEXT, "double", FLOATS]) as (
    context: bigint,
    count: number,
    floats: Float32Array,
  ) => number;
  const open = (): bigint => {
    if (context === null) throw new Error("this CPU device is closed");
    return context;
  };
  const bind = (name: OperationName): NativeOperation => {
    const call = library.func(`segue_${name}_${variant}`, "void", [CONTEXT, ...OPERATIONS[name]]) as NativeOperation;
    return (...args) => call(open(), ...args);
  };
  return {
    variant,
    operations: Object.fromEntries((Object.keys(OPERATIONS) as OperationName[]).map((name) => [name, bind(name)])) as Record<
      OperationName,
      NativeOperation
    >,
    sumOfSquares: (floats) => sumOfSquares(open(), floats.length, floats),
    scratchBytes: () => scratchBytes(open()),
    close: () => {
      if (context !== null) closeContext(context);
      context = null;
    },
  };
}
