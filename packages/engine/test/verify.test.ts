import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  decodeSafetensors,
  encodeSafetensors,
  onePage,
  parameterLayout,
  stretches,
  type ModelSpec,
  type SafetensorsTensor,
} from "@segue/core";
import { writeModelFolder } from "../src/export-folder.js";
import { createEngine, type EngineName } from "../src/create-engine.js";
import type { Engine } from "../src/engine.js";
import { createReferenceEngine } from "../src/native/index.js";
import { goldenCase } from "../src/verify/golden.js";
import { relativeError } from "../src/verify/relative-error.js";
import { segmentOf } from "../src/segments.js";
import { defaultTokens, randomBatch, readVerifyCase, type VerifyCase } from "../src/verify/verify-case.js";
import { verifyEngine, type VerifyReport } from "../src/verify/verify-engine.js";
import { noisyParameters, readGolden } from "./native-support.js";

const MODEL: ModelSpec = {
  ...{ layers: 2, dModel: 24, dState: 10, headDim: 12, expand: 2, dConv: 4, groups: 1, chunk: 16, vocab: 61, padVocabMultiple: 1 },
  ...{ tieEmbeddings: true, rmsEps: 1e-5 },
};
const RANDOM = { seed: 1, lanes: 2 };
const goldenFolder = (name: string): string => fileURLToPath(new URL(`golden/${name}`, import.meta.url));

async function verify(name: EngineName, verifyCase: VerifyCase, segmentTokens: number): Promise<VerifyReport> {
  const engine = await createEngine(name, { model: verifyCase.model, precision: "f32", threads: 2 });
  try {
    return await verifyEngine(engine, verifyCase, segmentTokens);
  } finally {
    engine.close();
  }
}

const failures = ({ measurements }: VerifyReport): string[] =>
  measurements.filter(({ pass }) => !pass).map(({ run, quantity, error }) => `${run} ${quantity} ${error}`);

describe("verification of an engine", () => {
  let folder: string;
  beforeEach(async () => (folder = await mkdtemp(join(tmpdir(), "segue-verify-"))));
  afterEach(() => rm(folder, { recursive: true }));

  for (const name of ["tiny", "untied", "grouped-bc"] as const) {
    it(`passes the cpu engine on golden values, whole and cut (${name})`, async () => {
      const verifyCase = await readVerifyCase(goldenFolder(name), RANDOM);
      const report = await verify("cpu", verifyCase, 17);
      assert.deepEqual(failures(report), []);
      assert.equal(report.passed, true);
      const tensors = parameterLayout(verifyCase.model).entries.length;
      assert.equal(report.measurements.length, 2 * (5 + tensors) + tensors);
      const against = (run: string, quantity: string): string | undefined =>
        report.measurements.find((measurement) => measurement.run === run && measurement.quantity === quantity)?.against;
      assert.equal(against("cut", "token losses"), "golden");
      assert.equal(against("whole", "gradient backbone.norm_f.weight"), "golden");
      assert.equal(against("cut", "gradient backbone.norm_f.weight"), "reference");
      assert.equal(against("through", "gradient backbone.norm_f.weight"), "golden");
      assert.equal(against("cut", "final SSM states"), "reference");
    });
  }

  it("passes the tfjs engine on golden values", async () => {
    assert.deepEqual(failures(await verify("tfjs", await readVerifyCase(goldenFolder("tiny"), RANDOM), 17)), []);
  });

  it("takes the golden values as they are, whatever the engine says", () => {
    const golden = readGolden("tiny");
    const values = goldenCase(golden.model, goldenTensors);
    assert.deepEqual(values.batch.tokens_BT, golden.input_BT);
    assert.deepEqual(values.golden.gradient, golden.gradient);
    const mean = values.golden.losses_BT.reduce((sum, loss) => sum + loss, 0) / values.golden.losses_BT.length;
    assert.ok(Math.abs(mean / golden.loss - 1) < 1e-6);
    assert.ok(Math.abs(values.golden.loss / golden.loss - 1) < 1e-7);
  });

  it("proves any folder against the reference, with resets and masks in random tokens", async () => {
    await writeModelFolder(folder, { model: MODEL, parameters: onePage(noisyParameters(MODEL)) }, 0);
    const verifyCase = await readVerifyCase(folder, { ...RANDOM, lanes: 3, tokens: 70 });
    assert.equal(verifyCase.golden, undefined);
    assert.ok(verifyCase.batch.resets_BT?.includes(1) && verifyCase.batch.weights_BT?.includes(0));
    const report = await verify("cpu", verifyCase, 23);
    assert.deepEqual(failures(report), []);
    assert.ok(report.measurements.every(({ against }) => against === "reference"));
    assert.deepEqual(await readVerifyCase(folder, { ...RANDOM, lanes: 3, tokens: 70 }), verifyCase);
  });

  it("names what an engine gets wrong", async () => {
    const verifyCase = await readVerifyCase(goldenFolder("tiny"), RANDOM);
    const broken = async (change: Partial<Engine>): Promise<Set<string>> => {
      const engine = createReferenceEngine(verifyCase.model);
      const changed = new Proxy(engine, {
        get(target, key) {
          const value: unknown = Reflect.get({ ...change }, key) ?? Reflect.get(target, key, target);
          return typeof value === "function" ? (value as () => unknown).bind(target) : value;
        },
      });
      const report = await verifyEngine(changed, verifyCase, 17);
      assert.equal(
        report.passed,
        report.measurements.every(({ pass }) => pass),
      );
      return new Set(report.measurements.filter(({ pass }) => !pass).map(({ run, quantity }) => `${run} ${quantity}`));
    };
    const good = createReferenceEngine(verifyCase.model);
    for (const { floats, offset } of stretches(verifyCase.parameters)) good.writeParameters(floats, offset);

    assert.deepEqual(await broken({}), new Set());
    // States that are not carried only matter where there is a second segment.
    const forgetful = await broken({
      score: (batch) => good.score(batch, good.createStates(batch.lanes)),
      prefill: (batch) => good.prefill(batch, good.createStates(batch.lanes)),
    });
    assert.deepEqual(forgetful, new Set(["cut token losses", "cut last logits"]));
    // One wrong number in one gradient.
    const entry = parameterLayout(verifyCase.model).entries.find(({ name }) => name === "backbone.layers.1.mixer.dt_bias")!;
    const offByOne = await broken({
      forwardBackward(batch, states, gradient, rules) {
        const loss = good.forwardBackward(batch, states, gradient, rules);
        gradient[entry.offset] = gradient[entry.offset]! * 1.01;
        return loss;
      },
    });
    assert.deepEqual(offByOne, new Set(["whole", "cut", "through"].map((run) => `${run} gradient ${entry.name}`)));
    // Gradients that stop where they should flow on.
    const truncating = await broken({
      forwardBackward: (batch, states, gradient, rules) =>
        good.forwardBackward(batch, states, gradient, rules && { ...rules, gradient: "truncated" }),
    });
    assert.ok(truncating.size > 5 && [...truncating].every((failure) => failure.startsWith("through gradient ")));
    // What is not a number never passes.
    const nan = await broken({
      readStates: (_states, into) => void into.fill(NaN),
    });
    assert.deepEqual(nan, new Set(["whole", "cut"].flatMap((run) => [`${run} final SSM states`, `${run} final conv taps`])));
  });

  it("stops when it is told to", async () => {
    const verifyCase = await readVerifyCase(goldenFolder("tiny"), RANDOM);
    await assert.rejects(
      verifyEngine(createReferenceEngine(verifyCase.model), verifyCase, 17, AbortSignal.abort(new Error("enough"))),
      /enough/,
    );
  });

  it("refuses folders that are not whole, with what is wrong", async () => {
    const refused = (reason: RegExp): Promise<void> =>
      assert.rejects(readVerifyCase(folder, RANDOM), (error: Error & { code?: string }) => {
        assert.equal(error.code, "VERIFY_FOLDER_INVALID");
        assert.match(error.message, reason);
        return true;
      });
    await refused(/config\.json/);
    await cp(goldenFolder("tiny"), folder, { recursive: true });
    const write = (change: (tensors: Map<string, SafetensorsTensor>) => void): Promise<void> => {
      const tensors = new Map(goldenTensors);
      change(tensors);
      return writeFile(join(folder, "golden.safetensors"), encodeSafetensors([...tensors.values()]));
    };
    await write((tensors) => tensors.delete("targets"));
    await refused(/it has no targets/);
    await write((tensors) => tensors.delete("grad.backbone.norm_f.weight"));
    await refused(/norm_f\.weight is missing/);
    await write((tensors) => tensors.set("logits", { ...tensors.get("logits")!, shape: [2, 64, 50] }));
    await refused(/logits has shape \[2, 64, 50\], not \[2, 50, 64\]/);
    await write((tensors) => {
      const ids = tensors.get("input_ids")!;
      tensors.set("input_ids", { ...ids, data: new Uint8Array(Int32Array.from({ length: 100 }, () => 64).buffer) });
    });
    await refused(/input_ids holds 64, the vocabulary has 64/);
    await writeFile(join(folder, "golden.safetensors"), "nothing");
    await refused(/safetensors/);
  });
});

describe("verification's parts", () => {
  it("measures the norm of the difference over that of what is expected", () => {
    assert.equal(relativeError([3, 4], [3, 4]), 0);
    assert.equal(relativeError([3, 5], [0, 5]), 3 / 5);
    assert.equal(relativeError([0.5], [0]), 0.5);
    assert.ok(Number.isNaN(relativeError([NaN, 1], [1, 1])));
    assert.throws(() => relativeError([1], [1, 2]), RangeError);
  });

  it("cuts every lane at the same columns", () => {
    const batch = randomBatch(MODEL, 3, 2, 5);
    const segment = segmentOf(batch, 3, 2);
    assert.deepEqual(
      [...segment.tokens_BT],
      [3, 4, 8, 9].map((i) => batch.tokens_BT[i]),
    );
    assert.deepEqual(
      [...segment.weights_BT!],
      [3, 4, 8, 9].map((i) => batch.weights_BT![i]),
    );
    assert.deepEqual(
      [...segment.resets_BT!],
      [3, 4, 8, 9].map((i) => batch.resets_BT![i]),
    );
  });

  it("draws more tokens than a chunk has, and few for a large model", () => {
    assert.equal(defaultTokens({ ...MODEL, chunk: 256 }, 1e5, 2), 384);
    assert.equal(defaultTokens({ ...MODEL, chunk: 256 }, 129e6, 2), 11);
    assert.equal(defaultTokens({ ...MODEL, chunk: 256 }, 27e8, 2), 8);
  });
});

const goldenTensors = decodeSafetensors(await readFile(join(goldenFolder("tiny"), "golden.safetensors")));
