import assert from "node:assert/strict";
import {
  byteTokenizer,
  minimumPasskeyPromptTokens,
  passkeyDocument,
  passkeyPrompt,
  passkeySource,
  recentAccuracy,
  wilsonInterval,
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
  const { tokens, read, answer } = passkeyPrompt({ tokenizer, contextTokens, depth, digits: 5, seed: 1, sample, template });
  return { text: tokenizer.decode([...read(0, tokens)]), answer };
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

  it("shares everything before the needle with other keys and with longer contexts", () => {
    const prompt = (contextTokens: number, depth: number, sample: number) =>
      passkeyPrompt({ tokenizer, contextTokens, depth, digits: 5, seed: 1, sample, template: "paper" });
    const [one, other, longer] = [prompt(2048, 0.5, 0), prompt(2048, 0.5, 1), prompt(8192, 0.9, 0)];
    assert.ok(one.sharedTokens > 800 && one.sharedTokens < 1024);
    assert.deepEqual(one.read(0, one.sharedTokens), other.read(0, one.sharedTokens));
    assert.deepEqual(one.read(0, one.sharedTokens), longer.read(0, one.sharedTokens));
    assert.match(tokenizer.decode([...one.read(one.sharedTokens, 20)]), /^ The passkey is \d+$/);
    assert.equal(prompt(2048, 0, 0).sharedTokens, 0, "the first block is the needle");
  });

  it("reads the same tokens in pieces, at a million tokens too", () => {
    const prompt = passkeyPrompt({
      tokenizer,
      contextTokens: 2 ** 20,
      depth: 0.5,
      digits: 5,
      seed: 1,
      sample: 0,
      template: "code",
    });
    const tail = tokenizer.decode([...prompt.read(prompt.tokens - 60, 60)]);
    assert.match(tail, /There and back again\.\n\nWhat is the pass key\? The passkey is$/);
    assert.deepEqual([...prompt.read(500, 7), ...prompt.read(507, 300)], [...prompt.read(500, 307)]);
    assert.throws(() => prompt.read(prompt.tokens - 1, 2), RangeError);
  });

  it("has the tokens of the whole text even where a tokenizer joins letters across blocks", () => {
    // Two bytes a token, so that what a token holds depends on everything before it.
    const pairs = {
      vocab: 65_536,
      eosId: 0,
      encode: (text: string): number[] =>
        (text.match(/[^]{1,2}/g) ?? []).map((pair) => pair.charCodeAt(0) * 256 + (pair.charCodeAt(1) || 0)),
      decode: (ids: readonly number[]): string =>
        ids
          .map((id) => String.fromCharCode(id >> 8, id & 255))
          .join("")
          .replace(/\0$/, ""),
    };
    const options = { contextTokens: 1024, depth: 0.5, digits: 5, seed: 1, sample: 0, template: "paper" } as const;
    const { tokens, read, sharedTokens } = passkeyPrompt({ ...options, tokenizer: pairs });
    const text = pairs.decode([...read(0, tokens)]);
    assert.deepEqual([...read(0, tokens)], pairs.encode(text));
    assert.match(text, /^There is important.*Remember it\..*The passkey is$/s);
    assert.equal(sharedTokens, 0);
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

describe("wilsonInterval", () => {
  it("gives the published values", () => {
    // Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    const rounded = (hits: number, trials: number): number[] =>
      Object.values(wilsonInterval(hits, trials)).map((bound: number) => Number(bound.toFixed(4)));
    assert.deepEqual(rounded(81, 263), [0.2553, 0.3662]);
    assert.deepEqual(rounded(15, 148), [0.0624, 0.1605]);
    assert.deepEqual(rounded(0, 20), [0, 0.1611]);
    assert.deepEqual(rounded(1, 29), [0.0061, 0.1718]);
    assert.equal(wilsonInterval(20, 20).high, 1);
  });

  it("refuses what is no share", () => {
    for (const [hits, trials] of [
      [1, 0],
      [3, 2],
      [-1, 2],
    ] as const) {
      assert.throws(() => wilsonInterval(hits, trials), RangeError);
    }
  });
});

describe("recentAccuracy", () => {
  const cells = [
    { length: 1024, depth: 0, correct: 9, samples: 10 },
    { length: 4096, depth: 0.5, correct: 1, samples: 10 },
    { length: 4096, depth: 0.75, correct: 4, samples: 10 },
    { length: 4096, depth: 0.9, correct: 8, samples: 10 },
  ];

  it("counts the keys within the last tokens, by length, and leaves out what holds every key", () => {
    const recent = recentAccuracy(cells).map(({ lastTokens, length, correct, samples }) => [lastTokens, length, correct, samples]);
    assert.deepEqual(recent, [
      [1024, 1024, 9, 10],
      [1024, 4096, 12, 20],
      [2048, 1024, 9, 10],
      [2048, 4096, 13, 30],
    ]);
    assert.deepEqual(recentAccuracy(cells.slice(0, 2), [1024])[0]!.interval, wilsonInterval(9, 10));
  });
});
