import assert from "node:assert/strict";
import { validateJobSpec } from "@segue/core";
import { create, JobSpecSchema } from "@segue/protocol";
import { jobSpecInputFromProto, jobSpecToProto } from "../src/index.js";

const PASSKEY_JOB = {
  name: "probe",
  seed: 4_000_000_000,
  model: { preset: "mamba2-130m" },
  data: { passkey: { documentTokens: 4096, askProbability: 0.25 } },
  tbptt: {
    segmentTokens: 256,
    segmentsPerStep: 2,
    gradient: "full",
    carryConv: false,
    sequence: "unrelated",
    curriculum: [{ fromStep: 3, segmentTokens: 512 }],
  },
  train: { steps: 7 },
  evaluations: [
    { name: "heat", passkey: { lengths: [1024, 2048], depths: [0, 0.5, 1], carryState: false } },
    { stateStatistics: { tokens: 1000, everyTokens: 10, histogramTokens: [20, 900], prompt: "corpus" } },
    { effectiveRemembrance: { tokens: 100, starts: [0, 7], prompt: "passkey", prompts: 3 } },
    {
      lossByPosition: { prompt: "random", prompts: 8, seed: 3 },
      cures: [
        { kind: "none" },
        { kind: "reduced", retention: 0.999, insertion: 1 },
        { kind: "normalised", multiplier: 2, referenceTokens: 300, everyTokens: 10 },
        { kind: "window", tokens: 640, everyTokens: 64 },
        { kind: "longMamba", dtScale: 0.2 },
      ],
    },
  ],
};

describe("job specs on the wire", () => {
  it("come back as they went, every field", () => {
    const { spec } = validateJobSpec(PASSKEY_JOB);
    const input = jobSpecInputFromProto(jobSpecToProto(spec));
    assert.deepEqual(validateJobSpec(input).spec, spec);
  });

  it("leave out what the sender left out, zero and false included only when set", () => {
    const message = create(JobSpecSchema, {
      seed: 0,
      tbptt: { carrySsm: false },
      data: { epochs: 0 },
      train: { tokens: 1_000_000n },
    });
    assert.deepEqual(jobSpecInputFromProto(message), {
      seed: 0,
      tbptt: { carrySsm: false },
      data: { epochs: 0 },
      train: { tokens: 1_000_000 },
    });
  });

  it("carry every field of the spec that the wire knows", () => {
    const { spec } = validateJobSpec(PASSKEY_JOB);
    const message = jobSpecToProto(spec);
    assert.equal(message.optimizer?.beta2, spec.optimizer.beta2);
    assert.equal(message.model?.rmsEps, spec.model.rmsEps);
    assert.deepEqual([message.tbptt?.sequence, message.tbptt?.curriculum[0]?.fromStep], ["unrelated", 3]);
    assert.deepEqual(message.evaluations[0]?.passkey?.lengths, [1024, 2048]);
    assert.equal(message.evaluations[0].passkey.carryState, false);
  });
});
