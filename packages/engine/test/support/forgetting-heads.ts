import { noise } from "../native-support.js";
import type { DeviceCase } from "../devices-support.js";

const [lanes, tokens, heads, headDim, dState] = [2, 300, 16, 16, 16];
const rows = lanes * tokens;
const width = heads * headDim;
const stride = width * dState;

/**
 * A scan by heads that forget at rates from 1 to 64, as trained ones do: where one forgets fast, sums of logarithms are large, and the
 * gradient of A comes out wrong in float32 if it is a difference of such sums. Sizes, and inputs in row-major order.
 */
export const FORGETTING = {
  ...{ lanes, tokens, heads, headDim, dState, width, rows, stride },
  aLog_H: Float32Array.from({ length: heads }, (_, head) => (head / (heads - 1)) * Math.log(64)),
  dt_RH: noise("dt", rows * heads, 0.3).map(Math.abs),
  xBC_RC: noise("xBC", rows * (width + 2 * dState), 0.7),
  state_BHPN: noise("state", lanes * stride),
  dY_RI: noise("dY", rows * width),
  dState_BHPN: noise("dState", lanes * stride),
} as const;

/** On a device: the gradients of dot(y, dY) + dot(final state, dState) by A_log and dt, for a skip of zero. */
export const forgettingHeads: DeviceCase = (b) => {
  const { aLog_H, dt_RH, xBC_RC, state_BHPN, dY_RI, dState_BHPN } = FORGETTING;
  const shape = { lanes, tokens, heads, headDim, dState, groups: 1, chunk: 256 };
  const [chunkStates_BKHPN, skip_H] = [b.poison(2 * lanes * stride), b.floats(new Float32Array(heads))];
  const inputs = { xBC_RC: b.floats(xBC_RC), dt_RH: b.floats(dt_RH), aLog_H: b.floats(aLog_H), skip_H };
  const given = { ...shape, ...inputs, resets_R: undefined, chunkStates_BKHPN };
  b.device.scan({ ...given, state: { data: b.floats(state_BHPN), stride }, y_RI: b.poison(rows * width) });
  const [dALog_H, dDt_RH] = [b.poison(heads), b.poison(rows * heads)];
  b.device.scanBackward({
    ...{ ...given, dY_RI: b.floats(dY_RI), dXBC_RC: b.poison(xBC_RC.length), dDt_RH, dALog_H, dSkip_H: b.poison(heads) },
    ...{ dChunkStates_BKHPN: b.poison(2 * lanes * stride), stateGradient: { data: b.floats(dState_BHPN), stride } },
  });
  return { dALog: { data: dALog_H, length: heads }, dDt: { data: dDt_RH, length: rows * heads } };
};
