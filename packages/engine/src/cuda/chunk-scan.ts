import type { ScanArgs, ScanBackwardArgs, ScanShape, Segment } from "../devices/device.js";
import type { Address } from "./driver.js";
import type { CudaFloats, CudaInts } from "./floats.js";
import { CHUNK, keptStateFloats, suitsTiles, TILE } from "./kept-states.js";
import type { CudaOperations } from "./operations.js";
import type { Scratch, Wishes } from "./scratch.js";

type F = CudaFloats;
type I = CudaInts;

const PADDING = 8;
const FLOAT_PADDING = 4;
const BF16_BYTES = 2;
/** Blocks that keep a large GPU busy. */
const ENOUGH_BLOCKS = 240;

/** Bytes of shared memory, as the structs in `cuda/scan-*.cu` have them. */
const sharedBytes = {
  states: (rows: number, n: number): number => 2 * CHUNK * (rows + n + 2 * PADDING) * BF16_BYTES + 4 * (4 + 2 + 1) * CHUNK,
  outputs: (p: number, n: number): number => {
    const first = 2 * CHUNK * (n + PADDING);
    const then = 2 * (CHUNK * (p + PADDING) + p * (n + PADDING));
    return Math.max(first, then) * BF16_BYTES + 4 * (4 + 1) * CHUNK;
  },
  gradients: (p: number, n: number): number => {
    const halves = 2 * CHUNK * (n + PADDING) + 4 * (CHUNK * (p + PADDING) + p * (n + PADDING)) + CHUNK * (CHUNK + PADDING);
    return halves * BF16_BYTES + 4 * ((4 + 1 + 2 * 9 + p + FLOAT_PADDING) * CHUNK + 2 * 8);
  },
};

interface Prepared {
  readonly chunks: number;
  readonly decays: Address;
  readonly starts: Address;
  readonly states: Address;
  readonly defines: Readonly<Record<string, number>>;
}

/** The scan on tensor cores, bf16 factors and float32 sums. It keeps the first of the chunk states in float32, and all in bf16 on demand. */
export class ChunkScan {
  readonly #operations: CudaOperations;
  readonly #scratch: Scratch;

  constructor(operations: CudaOperations, scratch: Scratch) {
    this.#operations = operations;
    this.#scratch = scratch;
  }

  /** Whether the kernels can be built for this shape on this GPU. */
  takes({ headDim, dState }: ScanShape): boolean {
    const { precision, runtime } = this.#operations;
    return (
      precision === "bf16" &&
      suitsTiles({ headDim, dState }) &&
      sharedBytes.gradients(headDim, dState) <= runtime.gpu.sharedBytesPerBlock
    );
  }

  /** Of a training step. @param keepsAll whether no states are computed again */
  wishes(shape: ScanShape, lanes: number, tokens: number, keepsAll: boolean): Wishes {
    const bytes = BF16_BYTES * keptStateFloats(shape, lanes, tokens);
    const decays = decayBytes(shape, lanes, Math.ceil(tokens / CHUNK));
    return { operation: bytes, states: keepsAll ? 0 : bytes, decays };
  }

  scan(args: ScanArgs<F, I>): void {
    const { lanes, tokens, heads, headDim, dState, groups, state, chunkStates_BKHPN, y_RI } = args;
    const o = this.#operations;
    const prepared = this.#prepare(args, args);
    const { chunks, decays, starts, states, defines } = prepared;
    const laneFloats = heads * headDim * dState;
    const first = [state.data.f32, state.stride];
    const kept = args.keepState ? [0, 0, 0, 0] : [...first, chunkStates_BKHPN.f32, laneFloats];
    this.#passStates(args, prepared, 0, [...first, ...kept, states]);
    o.launch(
      "scan_outputs",
      { grid: [chunks, lanes, groups], block: [128], sharedBytes: sharedBytes.outputs(headDim, dState), defines },
      ...[tokens, heads, groups, chunks, decays, starts, args.xBC_RC.bf16, args.skip_H.f32, states, y_RI.bf16],
    );
  }

  scanBackward(args: ScanBackwardArgs<F, I>): void {
    const { lanes, tokens, heads, headDim, dState, groups, chunkStates_BKHPN, dALog_H, dSkip_H, stateGradient } = args;
    const o = this.#operations;
    const prepared = this.#prepare(args);
    const { chunks, decays, starts, states, defines } = prepared;
    const laneFloats = heads * headDim * dState;
    const dStates = this.#scratch.take("operation", BF16_BYTES * keptStateFloats(args, lanes, tokens));
    const sums = lanes * chunks * heads;
    const partial = this.#scratch.take("partial", 4 * 2 * sums);
    const gradient = stateGradient ? [stateGradient.data.f32, stateGradient.stride] : [0, 0];
    if (!args.keptStates && !args.followsScan)
      this.#passStates(args, prepared, 0, [chunkStates_BKHPN.f32, laneFloats, 0, 0, 0, 0, states]);
    this.#passStates(args, prepared, args.dY_RI.bf16, [...gradient, ...gradient, 0, 0, dStates]);
    o.launch(
      "scan_gradients",
      { grid: [chunks, lanes, groups], block: [384], sharedBytes: sharedBytes.gradients(headDim, dState), defines },
      ...[tokens, heads, groups, chunks, decays, starts, args.xBC_RC.bf16, args.aLog_H.f32, args.skip_H.f32, states, dStates],
      ...[args.dY_RI.bf16, args.dXBC_RC.bf16, args.dDt_RH.f32, partial, partial + 4 * sums],
    );
    o.columnSums(lanes * chunks, heads, heads, partial, dALog_H.f32);
    o.columnSums(lanes * chunks, heads, heads, partial + 4 * sums, dSkip_H.f32);
  }

  /** @param cure absent: the recurrence as it was trained */
  #prepare(
    args: Segment<I> & ScanShape & { readonly dt_RH: F; readonly aLog_H: F; readonly keptStates?: F | undefined },
    { logRetention = 0, insertion = 1 }: Pick<ScanArgs<F, I>, "logRetention" | "insertion"> = {},
  ): Prepared {
    const { lanes, tokens, heads, headDim, dState } = args;
    const o = this.#operations;
    const chunks = Math.ceil(tokens / CHUNK);
    const decays = this.#scratch.take("decays", decayBytes(args, lanes, chunks));
    const starts = decays + 4 * CHUNK * lanes * chunks * 2 * heads;
    const states = args.keptStates?.bf16 ?? this.#scratch.take("states", BF16_BYTES * keptStateFloats(args, lanes, tokens));
    const defines = { HEAD_DIM: headDim, STATE: dState };
    o.launch(
      "scan_decays",
      { grid: [chunks, lanes], block: [256], defines },
      ...[tokens, heads, chunks, args.resets_R?.address ?? 0, args.dt_RH.f32, args.aLog_H.f32, logRetention, insertion],
      ...[decays, starts],
    );
    return { chunks, decays, starts, states, defines };
  }

  #passStates(
    { lanes, tokens, heads, headDim, dState, groups, xBC_RC }: Segment<I> & ScanShape & { readonly xBC_RC: F },
    { chunks, decays, starts, defines }: Prepared,
    dY: Address,
    ends: readonly number[],
  ): void {
    const rows = rowsOfBlock(headDim, lanes * heads);
    this.#operations.launch(
      "scan_states",
      {
        ...{ grid: [heads, lanes, headDim / rows], block: [2 * rows], sharedBytes: sharedBytes.states(rows, dState) },
        defines: { ...defines, ROWS: rows },
      },
      ...[tokens, heads, groups, chunks, decays, starts, xBC_RC.bf16, dY, ...ends],
    );
  }
}

function decayBytes({ heads }: ScanShape, lanes: number, chunks: number): number {
  return 4 * CHUNK * lanes * chunks * (2 * heads + 1);
}

/** Rows of a head's state that one block takes: fewer where that gives the GPU more to do at once. */
function rowsOfBlock(headDim: number, heads: number): number {
  const sizes = [64, 48, 32, 16].filter((rows) => headDim % rows === 0);
  return sizes.find((rows) => (heads * headDim) / rows >= ENOUGH_BLOCKS) ?? sizes.find((rows) => rows <= 32) ?? TILE;
}
