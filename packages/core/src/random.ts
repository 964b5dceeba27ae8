/** A stream of random numbers. Two streams made from the same seed and labels give the same numbers on every platform. */
export interface Random {
  /** An integer in [0, 2^32). */
  uint32(): number;
  /** A number in [0, 1) with 53 random bits. */
  uniform(): number;
  /** An integer in [0, n), without bias. @throws RangeError unless n is an integer in [1, 2^32] */
  below(n: number): number;
  /** A standard normal number. */
  normal(): number;
}

/**
 * The random stream that belongs to `seed` and `labels`, for example `randomStream(spec.seed, "init", name)`. Streams of different
 * labels are independent, so nothing has to be drawn in order and no generator state is ever stored: the labels are the state.
 * Only additions, multiplications, shifts and square roots are used, never a library's logarithm, whose last bit differs by version.
 */
export function randomStream(seed: number, ...labels: readonly (string | number)[]): Random {
  let [a, b, c] = hashLabels(seed, labels);
  let counter = 1;

  // Chris Doty-Humphrey's sfc32: three words of chaos and a counter that guarantees a period of at least 2^32.
  const uint32 = (): number => {
    const output = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + output) | 0;
    return output >>> 0;
  };
  for (let round = 0; round < 12; round++) uint32();

  const uniform = (): number => ((uint32() >>> 5) * 2 ** 26 + (uint32() >>> 6)) / 2 ** 53;

  const below = (n: number): number => {
    if (!Number.isInteger(n) || n < 1 || n > 2 ** 32) throw new RangeError(`below: ${n} is not an integer in [1, 2^32]`);
    const limit = 2 ** 32 - (2 ** 32 % n);
    let draw = uint32();
    while (draw >= limit) draw = uint32();
    return draw % n;
  };

  let spare: number | undefined;
  const normal = (): number => {
    if (spare !== undefined) {
      const second = spare;
      spare = undefined;
      return second;
    }
    // Marsaglia's polar method.
    for (;;) {
      const x = 2 * uniform() - 1;
      const y = 2 * uniform() - 1;
      const s = x * x + y * y;
      if (s >= 1 || s === 0) continue;
      const scale = Math.sqrt((-2 * naturalLog(s)) / s);
      spare = y * scale;
      return x * scale;
    }
  };

  return { uint32, uniform, below, normal };
}

/** Three well-mixed words from seed and labels; labels are framed, so ("ab") and ("a", "b") and (1) and ("1") all differ. */
function hashLabels(seed: number, labels: readonly (string | number)[]): [number, number, number] {
  const words: [number, number, number] = [0x9e3779b9, 0x243f6a88, 0xb7e15162];
  const absorb = (word: number): void => {
    words[0] = mix(words[0] ^ word);
    words[1] = mix((words[1] + Math.imul(word, 0x85ebca6b) + words[0]) | 0);
    words[2] = mix((words[2] ^ Math.imul(word, 0xc2b2ae35)) + words[1]);
  };
  const absorbNumber = (value: number): void => {
    const bits = new DataView(new ArrayBuffer(8));
    bits.setFloat64(0, value);
    absorb(bits.getUint32(0));
    absorb(bits.getUint32(4));
  };
  absorbNumber(seed);
  for (const label of labels) {
    if (typeof label === "number") {
      absorb(1);
      absorbNumber(label);
    } else {
      absorb(2);
      absorb(label.length);
      for (let i = 0; i < label.length; i++) absorb(label.charCodeAt(i));
    }
  }
  return words;
}

/** MurmurHash3's finaliser: every input bit reaches every output bit. */
function mix(word: number): number {
  let h = word | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) | 0;
}

/** ln x for x in (0, 1], from arithmetic alone: x = m 2^e with m in [1/2, 1), ln m = 2 atanh((m - 1) / (m + 1)) as a series. */
export function naturalLog(x: number): number {
  let mantissa = x;
  let exponent = 0;
  while (mantissa < 0.5) {
    mantissa *= 2;
    exponent--;
  }
  const t = (mantissa - 1) / (mantissa + 1);
  const t2 = t * t;
  let sum = 0;
  for (let k = 33; k >= 1; k -= 2) sum = sum * t2 + 1 / k;
  return exponent * 0.6931471805599453 + 2 * t * sum;
}
