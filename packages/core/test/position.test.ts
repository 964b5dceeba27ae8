import assert from "node:assert/strict";
import { byteTokenizer, judgeCollapse, meanCurve, positionPrompt, validateJobSpec, type Tokenizer } from "@segue/core";

const tokenizer = byteTokenizer();

describe("positionPrompt", () => {
  const prompt = (kind: "newlines" | "passkey" | "random", index = 0, seed = 1) =>
    positionPrompt(tokenizer, { prompt: kind, seed, tokens: 100_000 }, index);

  it("is newlines without end, as many in a token as the tokenizer joins", () => {
    assert.deepEqual(new Set(prompt("newlines").read(3_000_000, 5_000)), new Set([10]));
    // As GPT-NeoX: eight newlines are token 25330, one is 187 (paper.md section 1.4).
    const eights: Tokenizer = {
      ...tokenizer,
      vocab: 50_277,
      encode: (text) => (text.match(/\n{8}|\n/g) ?? []).map((run) => (run.length === 8 ? 25_330 : 187)),
    };
    const read = positionPrompt(eights, { prompt: "newlines", seed: 0, tokens: 1024 }, 0).read(0, 10_000);
    assert.deepEqual(new Set(read), new Set([25_330]));
  });

  it("reads the same tokens in whatever pieces, and others for another prompt or seed", () => {
    for (const kind of ["passkey", "random"] as const) {
      const whole = prompt(kind).read(0, 100_001);
      const pieces = [0, 1, 1023, 1024, 4000, 50_000].map((at, index, all) =>
        prompt(kind).read(at, (all[index + 1] ?? 100_001) - at),
      );
      assert.deepEqual(
        pieces.flatMap((piece) => [...piece]),
        [...whole],
      );
      assert.notDeepEqual(prompt(kind, 1).read(0, 100_001), whole);
      assert.notDeepEqual(prompt(kind, 0, 2).read(0, 100_001), whole);
    }
    assert.equal(tokenizer.decode([...prompt("passkey").read(0, 100_001)]).split("Remember it.").length, 2);
    assert.ok(new Set(prompt("random").read(0, 4096)).size > 200);
  });
});

describe("judgeCollapse", () => {
  const curve = (losses: (number | null)[]) => ({ bucketTokens: 10, losses });

  it("finds a collapse where a loss beyond the training length exceeds twice the largest within it", () => {
    assert.deepEqual(judgeCollapse(curve([3, 2, 2.5, 6.1, 9, 7]), 20), {
      ...{ collapsed: true, trainLoss: 3, worstRatio: 3, worstPosition: 40, firstPosition: 30 },
    });
  });

  it("finds none at exactly twice, nor within the training length", () => {
    assert.deepEqual(judgeCollapse(curve([3, 6, 2, 12]), 29), {
      ...{ collapsed: false, trainLoss: 6, worstRatio: 2, worstPosition: 30, firstPosition: null },
    });
    const inside = judgeCollapse(curve([3, 9]), 20);
    assert.deepEqual([inside.collapsed, inside.worstRatio, inside.worstPosition], [false, null, null]);
  });

  it("takes another factor, and a loss that is no number for a collapse", () => {
    assert.equal(judgeCollapse(curve([3, 5]), 10, 1.5).collapsed, true);
    assert.deepEqual(judgeCollapse(curve([3, 2, null, 4]), 10), {
      ...{ collapsed: true, trainLoss: 3, worstRatio: null, worstPosition: 20, firstPosition: 20 },
    });
  });

  it("refuses where no bucket lies within the training length", () => {
    assert.throws(() => judgeCollapse(curve([3, 4]), 9), /no loss within the training length/);
    assert.throws(() => judgeCollapse(curve([null, 4]), 10), /no loss within the training length/);
  });
});

describe("meanCurve", () => {
  it("weighs by prompts and keeps what is no number", () => {
    const parts = [
      { prompts: 3, losses: [1, 2, null] },
      { prompts: 1, losses: [5, 2, 1] },
    ];
    assert.deepEqual(meanCurve(parts), [2, 2, null]);
  });
});

describe("evaluations of loss by position", () => {
  const spec = (lossByPosition: object, more: object = {}) => ({
    model: { layers: 1, dModel: 64 },
    data: { passkey: {} },
    tbptt: { segmentTokens: 256, segmentsPerChain: 3 },
    batch: { shards: 1, lanesPerShard: 1 },
    train: { steps: 10 },
    evaluations: [{ lossByPosition, ...more }],
  });
  const violations = (input: object): string[] => {
    try {
      validateJobSpec(input);
      return [];
    } catch (error) {
      return (error as { violations: { field: string; description: string }[] }).violations.map(
        ({ field, description }) => `${field} ${description}`,
      );
    }
  };

  it("take their training length from the chain, and buckets that it holds; an effective spec validates to itself", () => {
    const effective = validateJobSpec(spec({})).spec;
    assert.deepEqual(effective.evaluations, [
      {
        name: "loss-by-position",
        everyCheckpoints: 1,
        cures: [{ kind: "none" }],
        lossByPosition: {
          ...{ tokens: 2 ** 20, bucketTokens: 512, prompt: "newlines", prompts: 1, seed: 0, trainTokens: 768, collapseFactor: 2 },
        },
      },
    ]);
    assert.deepEqual(validateJobSpec(effective).spec, effective);
  });

  it("are refused where the rule could not be applied", () => {
    assert.match(violations(spec({ tokens: 1000, bucketTokens: 300 }))[0]!, /lossByPosition.tokens must be a multiple/);
    assert.match(violations(spec({ bucketTokens: 32 }))[0]!, /bucketTokens must be larger/);
    assert.match(violations(spec({ bucketTokens: 1024 }))[0]!, /trainTokens must hold a bucket of 1024/);
    assert.match(violations(spec({ prompts: 8 }))[0]!, /prompts must be 1 for newlines/);
    assert.match(violations(spec({}, { passkey: {} }))[0]!, /passkey excludes lossByPosition/);
    assert.deepEqual(violations(spec({ prompts: 8, prompt: "random" })), []);
  });
});
