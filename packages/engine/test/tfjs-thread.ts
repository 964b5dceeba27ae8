/** Trains on one segment in a worker thread; used by tfjs-engine.test.ts. */
import { parentPort, workerData } from "node:worker_threads";
import type { ModelSpec } from "@segue/core";
import type { SegmentBatch } from "../src/engine.js";
import type { TensorFlowVariant } from "../src/tfjs/tensorflow.js";
import { createTfjsEngine } from "../src/tfjs/tfjs-engine.js";

const { variant, model, parameters, states, batch } = workerData as {
  variant: TensorFlowVariant;
  model: ModelSpec;
  parameters: Float32Array;
  states: Float32Array;
  batch: SegmentBatch;
};
const engine = await createTfjsEngine({ model, precision: "f32", threads: 1 }, [variant]);
engine.writeParameters(parameters);
const laneStates = engine.createStates(batch.lanes);
engine.writeStates(laneStates, states);
const gradient = new Float32Array(engine.layout.size);
const loss = engine.forwardBackward(batch, laneStates, gradient);
parentPort?.postMessage({ detail: engine.description.detail, loss, gradient });
engine.close();
