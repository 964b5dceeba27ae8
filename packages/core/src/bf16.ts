/**
 * Rounds floats to bfloat16, to the nearest, ties to even, in place; `into` gets the 16 bits of each. Values beyond the largest bfloat16
 * become infinite, NaN stays NaN.
 */
export function roundToBf16(floats: Float32Array, into: Uint16Array): void {
  const bits = new Uint32Array(floats.buffer, floats.byteOffset, floats.length);
  for (let i = 0; i < bits.length; i++) {
    const exact = bits[i] as number;
    const isNaN = (exact & 0x7fff_ffff) > 0x7f80_0000;
    const rounded = isNaN ? (exact >>> 16) | 0x40 : (exact + 0x7fff + ((exact >>> 16) & 1)) >>> 16;
    into[i] = rounded;
    bits[i] = rounded << 16;
  }
}

/** The floats that these bfloat16 stand for. */
export function widenBf16(from: Uint16Array, into: Float32Array): void {
  const bits = new Uint32Array(into.buffer, into.byteOffset, into.length);
  for (let i = 0; i < from.length; i++) bits[i] = (from[i] as number) << 16;
}
