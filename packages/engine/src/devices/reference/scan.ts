import type { ScanArgs, ScanBackwardArgs } from "../device.js";

type F = Float64Array;
type I = Int32Array;

/** Offsets of x, B and C of head h in a row of xBC. */
function columnsOf(
  args: { heads: number; headDim: number; dState: number; groups: number },
  h: number,
): { x: number; b: number; c: number } {
  const group = Math.floor((h * args.groups) / args.heads);
  const b = args.heads * args.headDim + group * args.dState;
  return { x: h * args.headDim, b, c: b + args.groups * args.dState };
}

/** The recurrence of paper.md 7.3, token by token. Only the initial state is kept for the backward pass. */
export function scan(args: ScanArgs<F, I>): void {
  const { lanes, tokens, heads, headDim, dState, groups, chunk, xBC_RC, dt_RH, aLog_H, skip_H, state, chunkStates_BKHPN, y_RI } =
    args;
  const { logRetention = 0, insertion = 1 } = args;
  const width = heads * headDim + 2 * groups * dState;
  const laneFloats = heads * headDim * dState;
  const chunks = Math.ceil(tokens / chunk);
  for (let b = 0; b < lanes; b++) {
    const h_HPN = state.data.subarray(b * state.stride, b * state.stride + laneFloats);
    chunkStates_BKHPN.set(h_HPN, b * chunks * laneFloats);
    for (let head = 0; head < heads; head++) {
      const column = columnsOf(args, head);
      const h_PN = h_HPN.subarray(head * headDim * dState, (head + 1) * headDim * dState);
      for (let t = 0; t < tokens; t++) {
        const row = b * tokens + t;
        const dt = dt_RH[row * heads + head]!;
        if (args.resets_R?.[row]) h_PN.fill(0);
        const decay = Math.exp(-dt * Math.exp(aLog_H[head]!) + logRetention);
        for (let p = 0; p < headDim; p++) {
          const x = xBC_RC[row * width + column.x + p]!;
          let y = skip_H[head]! * x;
          for (let n = 0; n < dState; n++) {
            const at = p * dState + n;
            h_PN[at] = decay * h_PN[at]! + insertion * dt * x * xBC_RC[row * width + column.b + n]!;
            y += h_PN[at] * xBC_RC[row * width + column.c + n]!;
          }
          y_RI[row * heads * headDim + head * headDim + p] = y;
        }
      }
    }
  }
}

/** The reverse recurrence of paper.md 7.6; g is the gradient of h_t. */
export function scanBackward(args: ScanBackwardArgs<F, I>): void {
  const { lanes, tokens, heads, headDim, dState, groups, xBC_RC, dt_RH, aLog_H, skip_H, resets_R, stateGradient } = args;
  const { dY_RI, dXBC_RC, dDt_RH, dALog_H, dSkip_H } = args;
  const width = heads * headDim + 2 * groups * dState;
  const headFloats = headDim * dState;
  dXBC_RC.fill(0, 0, lanes * tokens * width);
  dALog_H.fill(0, 0, heads);
  dSkip_H.fill(0, 0, heads);
  for (let lane = 0; lane < lanes; lane++) {
    for (let head = 0; head < heads; head++) {
      const column = columnsOf(args, head);
      const a = -Math.exp(aLog_H[head]!);
      const h_TPN = statesOf(args, lane, head);
      const outside = (stateGradient?.stride ?? 0) * lane + head * headFloats;
      const g_PN = stateGradient?.data.slice(outside, outside + headFloats) ?? new Float64Array(headFloats);
      for (let t = tokens - 1; t >= 0; t--) {
        const row = lane * tokens + t;
        const dt = dt_RH[row * heads + head]!;
        const reset = resets_R?.[row] === 1;
        const decay = reset ? 0 : Math.exp(dt * a);
        let dDt = 0;
        let dLogDecay = 0;
        for (let p = 0; p < headDim; p++) {
          const x = xBC_RC[row * width + column.x + p]!;
          const dY = dY_RI[row * heads * headDim + head * headDim + p]!;
          let dX = skip_H[head]! * dY;
          dSkip_H[head]! += dY * x;
          for (let n = 0; n < dState; n++) {
            const at = p * dState + n;
            const b = xBC_RC[row * width + column.b + n]!;
            const before = h_TPN[t * headFloats + at]!;
            const after = h_TPN[(t + 1) * headFloats + at]!;
            const g = g_PN[at]! + dY * xBC_RC[row * width + column.c + n]!;
            dXBC_RC[row * width + column.c + n]! += dY * after;
            dXBC_RC[row * width + column.b + n]! += g * dt * x;
            dX += g * dt * b;
            dDt += g * x * b;
            dLogDecay += g * decay * before;
            g_PN[at] = g * decay;
          }
          dXBC_RC[row * width + column.x + p]! += dX;
        }
        dDt_RH[row * heads + head] = dDt + dLogDecay * a;
        dALog_H[head]! += dLogDecay * dt * a;
      }
      stateGradient?.data.set(g_PN, outside);
    }
  }
}

/** The state of one head before the segment and after each of its tokens, [T + 1, P, N]. */
function statesOf(args: ScanBackwardArgs<F, I>, lane: number, head: number): F {
  const { tokens, heads, headDim, dState, groups, chunk, xBC_RC, dt_RH, aLog_H, chunkStates_BKHPN, resets_R } = args;
  const width = heads * headDim + 2 * groups * dState;
  const headFloats = headDim * dState;
  const column = columnsOf(args, head);
  const first = (lane * Math.ceil(tokens / chunk) * heads + head) * headFloats;
  const h_TPN = new Float64Array((tokens + 1) * headFloats);
  h_TPN.set(chunkStates_BKHPN.subarray(first, first + headFloats));
  for (let t = 0; t < tokens; t++) {
    const row = lane * tokens + t;
    const dt = dt_RH[row * heads + head]!;
    const decay = resets_R?.[row] === 1 ? 0 : Math.exp(-dt * Math.exp(aLog_H[head]!));
    for (let at = 0; at < headFloats; at++) {
      const x = xBC_RC[row * width + column.x + Math.floor(at / dState)]!;
      const b = xBC_RC[row * width + column.b + (at % dState)]!;
      h_TPN[(t + 1) * headFloats + at] = decay * h_TPN[t * headFloats + at]! + dt * x * b;
    }
  }
  return h_TPN;
}
