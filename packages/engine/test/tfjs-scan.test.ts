import assert from "node:assert/strict";
import type { Tensor, Tensor1D } from "@tensorflow/tfjs";
import { referenceDevice } from "../src/devices/reference/reference-device.js";
import { createOperations } from "../src/tfjs/operations.js";
import { scanMasks } from "../src/tfjs/segment-masks.js";
import { ssdScan } from "../src/tfjs/ssd-scan.js";
import { loadTensorFlow } from "../src/tfjs/tensorflow.js";
import { resultsOn } from "./devices-support.js";
import { relativeError } from "./native-support.js";
import { FORGETTING, forgettingHeads } from "./support/forgetting-heads.js";

describe("scan of the tfjs engine", () => {
  for (const chunk of [64, 256]) {
    it(`gives the gradients of A and dt of every head, however fast it forgets, to float32 rounding (chunk ${chunk})`, async () => {
      const loaded = await loadTensorFlow();
      const { tf } = loaded;
      const { lanes, tokens, heads, headDim, dState, width, rows } = FORGETTING;
      const sizes = { lanes, chunksPerLane: Math.ceil(tokens / chunk), chunk, heads, headDim, dState, groups: 1 };
      const padding = sizes.chunksPerLane * chunk - tokens;
      const padded = (values: Tensor): Tensor =>
        tf.pad(tf.reshape(values, [lanes, tokens, -1]), [
          [0, 0],
          [0, padding],
          [0, 0],
        ]);
      const columns = (from: number, count: number): Tensor =>
        padded(tf.slice(tf.tensor2d(FORGETTING.xBC_RC, [rows, width + 2 * dState]), [0, from], [rows, count]));
      const objective = (aLog_H: Tensor, dt_RH: Tensor): Tensor => {
        const { y_ZQHP, state_BHPN } = ssdScan(
          createOperations(loaded),
          sizes,
          {
            ...{ x_BTHP: columns(0, width), b_BTGN: columns(width, dState), c_BTGN: columns(width + dState, dState) },
            ...{ dt_BTH: padded(dt_RH), a_H: tf.neg(tf.exp(aLog_H)) as Tensor1D },
            state_BHPN: tf.tensor(FORGETTING.state_BHPN, [lanes, heads, headDim, dState]),
          },
          scanMasks(lanes, tokens, chunk, undefined),
        );
        const y_BTI = tf.slice(tf.reshape(y_ZQHP, [lanes, -1, width]), [0, 0, 0], [lanes, tokens, width]);
        const dY_BTI = tf.tensor(FORGETTING.dY_RI, [lanes, tokens, width]);
        const dState_BHPN = tf.tensor(FORGETTING.dState_BHPN, [lanes, heads, headDim, dState]);
        return tf.add(tf.sum(tf.mul(y_BTI, dY_BTI)), tf.sum(tf.mul(state_BHPN, dState_BHPN)));
      };
      const [dALog, dDt] = tf.tidy(() => {
        const inputs = [tf.tensor1d(FORGETTING.aLog_H), tf.tensor2d(FORGETTING.dt_RH, [rows, heads])];
        return tf
          .grads((a, dt) => objective(a, dt).asScalar())(inputs)
          .map((gradient) => gradient.dataSync<"float32">());
      });
      const right = resultsOn(referenceDevice, forgettingHeads);
      for (const [head, value] of dALog!.entries()) {
        const off = Math.abs(value / right["dALog"]![head]! - 1);
        assert.ok(off < 3e-5, `head ${head}: ${value} is off by ${off}`);
      }
      assert.ok(relativeError(dDt!, right["dDt"]!) < 1e-6);
    });
  }
});
