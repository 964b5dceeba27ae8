import type { ScanArgs, ScanBackwardArgs, ScanShape } from "../devices/device.js";
import type { CudaFloats, CudaInts } from "./floats.js";
import type { CudaOperations } from "./operations.js";
import type { Scratch, Wishes } from "./scratch.js";

type F = CudaFloats;
type I = CudaInts;

/** Threads that share a row of the state: `kSplit` in `cuda/scan-serial.cu`. */
const SPLIT = 4;
const WARP = 32;

const threads = (rows: number): [number] => [Math.ceil((rows * SPLIT) / WARP) * WARP];

/** The scan token by token: any shape, float32 exactness, slow. Of the chunk states it keeps the first. */
export class SerialScan {
  readonly #operations: CudaOperations;
  readonly #scratch: Scratch;

  constructor(operations: CudaOperations, scratch: Scratch) {
    this.#operations = operations;
    this.#scratch = scratch;
  }

  /** Of a training step. */
  wishes({ heads, headDim, dState }: ScanShape, lanes: number, tokens: number): Wishes {
    const sums = lanes * tokens * heads * (2 * dState + 1) + 3 * lanes * heads;
    return { "serial scan": 4 * (sums + lanes * heads * headDim * dState) };
  }

  scan(args: ScanArgs<F, I>): void {
    const { lanes, tokens, heads, headDim, dState, groups, state, chunkStates_BKHPN, y_RI } = args;
    const o = this.#operations;
    o.launch(
      "scan_serial",
      { grid: [heads, lanes], block: threads(headDim), defines: { HEAD_DIM: headDim, STATE: dState } },
      ...[tokens, heads, groups, args.resets_R?.address ?? 0, o.act(args.xBC_RC), args.dt_RH.f32, args.aLog_H.f32],
      ...[args.logRetention ?? 0, args.insertion ?? 1, args.skip_H.f32],
      ...[state.data.f32, state.stride, args.keepState ? 0 : chunkStates_BKHPN.f32, heads * headDim * dState, o.act(y_RI)],
    );
  }

  scanBackward(args: ScanBackwardArgs<F, I>): void {
    const { lanes, tokens, heads, headDim, dState, groups, chunkStates_BKHPN, dXBC_RC, dDt_RH, dALog_H, dSkip_H } = args;
    const o = this.#operations;
    const rows = lanes * tokens;
    const laneFloats = heads * headDim * dState;
    const gradient = args.stateGradient;
    const sizes = [rows * heads * dState, rows * heads * dState, rows * heads, lanes * heads, lanes * heads, lanes * heads];
    const floats = sizes.reduce((sum, size) => sum + size, gradient ? lanes * laneFloats : 0);
    let next = this.#scratch.take("serial scan", 4 * floats);
    const [dB, dC, throughY, atEnd, dA, dSkip] = sizes.map((size) => {
      const address = next;
      next += 4 * size;
      return address;
    }) as [number, number, number, number, number, number];
    const dInitial = gradient ? next : 0;

    const defines = { HEAD_DIM: headDim, STATE: dState };
    const grid = [heads, lanes] as const;
    const inputs = [tokens, heads, groups, args.resets_R?.address ?? 0, o.act(args.xBC_RC), args.dt_RH.f32, args.aLog_H.f32];
    const dFinal = [gradient?.data.f32 ?? 0, gradient?.stride ?? 0];
    const dY = o.act(args.dY_RI);
    o.launch(
      "scan_serial_dc",
      { grid, block: threads(dState), defines },
      ...[...inputs, chunkStates_BKHPN.f32, laneFloats, dY, ...dFinal, dC, throughY, atEnd],
    );
    o.launch(
      "scan_serial_dx",
      { grid, block: threads(headDim), defines },
      ...[...inputs, args.skip_H.f32, dY, ...dFinal, dInitial, o.act(dXBC_RC), dSkip],
    );
    o.launch(
      "scan_serial_db",
      { grid, block: threads(dState), defines },
      ...[...inputs, dY, ...dFinal, throughY, atEnd, dB, dDt_RH.f32, dA],
    );
    o.launch("scan_serial_sum_heads", { grid: [rows], block: [256], defines }, heads, groups, dB, dC, o.act(dXBC_RC));
    o.columnSums(lanes, heads, heads, dA, dALog_H.f32);
    o.columnSums(lanes, heads, heads, dSkip, dSkip_H.f32);
    if (!gradient) return;
    for (let lane = 0; lane < lanes; lane++) {
      o.runtime.copy(dInitial + 4 * lane * laneFloats, gradient.data.f32 + 4 * lane * gradient.stride, 4 * laneFloats);
    }
  }
}
