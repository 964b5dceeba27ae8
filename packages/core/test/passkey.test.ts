import assert from "node:assert/strict";
import {
  byteTokenizer,
  minimumPasskeyPromptTokens,
  passkeyDocument,
  passkeyPrompt,
  passkeySource,
  type PasskeyDataSpec,
} from "@segue/core";

const tokenizer = byteTokenizer();
const NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";

function promptText(
  contextTokens: number,
  depth: number,
  template: "paper" | "code",
  sample = 0,
): { text: string; answer: string } {
  const { promptTokens, answer } = passkeyPrompt({ tokenizer, contextTokens, depth, digits: 5, seed: 1, sample, template });
  return { text: tokenizer.decode(promptTokens), answer };
}

describe("passkeyPrompt", () => {
  it("writes the paper's words, byte for byte", () => {
    const { text, answer } = promptText(350, 0.5, "paper");
    assert.match(answer, /^[0-9]{5}$/);
    assert.equal(
      text,
      "There is important info hidden inside a lot of irrelevant text. Find it and memorize it.\n\n" +
        `The passkey is ${answer}. Remember it. ${answer} is the passkey. ${NOISE} ` +
        "What is the passkey? The passkey is",
    );
  });

  it("writes the published generator's words, byte for byte", () => {
    const { text, answer } = promptText(500, 1, "code");
    assert.equal(
      text,
      "There is an important info hidden inside a lot of irrelevant text. Find it and memorize it.\n\n" +
        `${NOISE}\n${NOISE}\n${NOISE}\nThe passkey is ${answer}. Remember it. ${answer} is the passkey.\n` +
        "\nWhat is the pass key? The passkey is",
    );
  });

  it("puts the needle where the depth says and stays within the context", () => {
    for (const contextTokens of [300, 1024, 4096]) {
      for (const depth of [0, 0.25, 0.5, 0.99, 1]) {
        const { text } = promptText(contextTokens, depth, "paper");
        const blocks = text.split(/(?<=again\.|is the passkey\.) /);
        const count = blocks.length - 1;
        assert.equal(
          blocks.findIndex((block) => block.includes("Remember it.")),
          Math.floor(depth * (count - 1)),
        );
        assert.ok(text.length <= contextTokens && text.length > contextTokens - 2 * (NOISE.length + 1));
      }
    }
  });

  it("draws another key for another sample, seed, depth or length, and the same for the same", () => {
    const key = (seed: number, sample: number, depth: number, contextTokens: number): string =>
      passkeyPrompt({ tokenizer, contextTokens, depth, digits: 9, seed, sample, template: "code" }).answer;
    assert.equal(key(1, 1, 0.5, 1024), key(1, 1, 0.5, 1024));
    assert.equal(
      new Set([key(1, 1, 0.5, 1024), key(2, 1, 0.5, 1024), key(1, 2, 0.5, 1024), key(1, 1, 0.6, 1024), key(1, 1, 0.5, 512)]).size,
      5,
    );
  });

  it("refuses a context that holds no block, naming the least that does", () => {
    const least = minimumPasskeyPromptTokens(tokenizer, "paper", 5);
    assert.ok(promptText(least, 0.5, "paper").text.length <= least);
    assert.throws(() => promptText(least - 1, 0.5, "paper"), new RegExp(`at least ${least} tokens`));
  });
});

describe("passkeyDocument", () => {
  const spec: PasskeyDataSpec = {
    documentTokens: 2048,
    digits: 3,
    minDepth: 0.1,
    maxDepth: 0.5,
    askProbability: 0.5,
    answerWeight: 10,
  };
  const whole = (overrides: Partial<PasskeyDataSpec> = {}, document = 0, seed = 1) => {
    const chunks = [...passkeyDocument(tokenizer, { ...spec, ...overrides }, seed, document)];
    const tokens = chunks.flatMap((chunk) => Array.from(chunk.tokens));
    const weights = chunks.flatMap((chunk) => (chunk.weights ? Array.from(chunk.weights) : Array.from(chunk.tokens, () => 1)));
    return { tokens, weights, text: tokenizer.decode(tokens) };
  };

  it("has one needle within the depths, questions only after it, and exactly the length asked for", () => {
    for (let document = 0; document < 50; document++) {
      const { tokens, weights, text } = whole({}, document);
      assert.equal(tokens.length, 2048);
      assert.equal(weights.length, 2048);
      const key = /The passkey is ([0-9]{3})\. Remember it\./.exec(text);
      assert.ok(key);
      assert.equal(text.split("Remember it.").length, 2);
      assert.ok(key.index > 0.1 * 2048 - 2 * NOISE.length && key.index <= 0.5 * 2048 + NOISE.length, `${key.index}`);
      assert.ok(!text.slice(0, key.index).includes("What is"));
      const asked = [...text.matchAll(/What is the passkey\? The passkey is ([0-9]{3})\./g)];
      assert.ok(asked.every(([, answer]) => answer === key[1]));
      const heavy = asked.flatMap(({ index }) =>
        [0, 1, 2].map((digit) => index + "What is the passkey? The passkey is ".length + digit),
      );
      assert.ok(heavy.every((position) => weights[position] === 10));
      assert.ok(weights.filter((weight) => weight !== 1).length >= heavy.length);
    }
  });

  it("asks as often as the probability says", () => {
    assert.ok(!whole({ askProbability: 0 }).text.includes("What is"));
    const always = whole({ askProbability: 1 }).text;
    assert.ok(!always.slice(always.indexOf("Remember")).includes("grass"));
  });

  it("fits the needle in even at the very end or start", () => {
    for (const depth of [0, 1]) assert.ok(whole({ minDepth: depth, maxDepth: depth }).text.includes("is the passkey."));
    assert.throws(() => passkeySource(tokenizer, { ...spec, documentTokens: 100 }, 0), { code: "PASSKEY_TOO_SHORT" });
  });

  it("is a function of seed and number, and can be entered at any token", async () => {
    assert.deepEqual(whole({}, 7), whole({}, 7));
    assert.notEqual(whole({}, 7).text, whole({}, 8).text);
    assert.notEqual(whole({}, 7).text, whole({}, 7, 2).text);
    const source = passkeySource(tokenizer, spec, 1);
    const { tokens, weights } = whole({}, 7);
    for (const from of [0, 1, 500, 1500, 2047, 2048]) {
      const rest: number[] = [];
      const restWeights: number[] = [];
      for await (const chunk of source.open(7, from)) {
        rest.push(...Array.from(chunk.tokens));
        restWeights.push(...(chunk.weights ? Array.from(chunk.weights) : Array.from(chunk.tokens, () => 1)));
      }
      assert.deepEqual(rest, tokens.slice(from));
      assert.deepEqual(restWeights, weights.slice(from));
    }
  });
});
