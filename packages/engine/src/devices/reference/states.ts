import type { LaneSumsArgs, MixHeadsArgs } from "../device.js";

type F = Float64Array;

export function laneSums({ lanes, tokens, columns, groups, width, squared, out }: LaneSumsArgs<F>): void {
  for (let b = 0; b < lanes; b++) {
    for (let g = 0; g < groups; g++) {
      let sum = 0;
      for (let t = 0; t < tokens; t++) {
        for (let i = 0; i < width; i++) {
          const value = columns.data[(b * tokens + t) * columns.stride + columns.first + g * width + i]!;
          sum += squared ? value * value : value;
        }
      }
      out.data[b * out.stride + g] = sum;
    }
  }
}

export function mixHeads({ lanes, heads, size, factors_BH, from, state, accumulate }: MixHeadsArgs<F>): void {
  for (let b = 0; b < lanes; b++) {
    for (let h = 0; h < heads; h++) {
      const factor = factors_BH[b * heads + h]!;
      for (let i = h * size; i < (h + 1) * size; i++) {
        const added = factor * from.data[b * from.stride + i]!;
        state.data[b * state.stride + i] = accumulate ? state.data[b * state.stride + i]! + added : added;
      }
    }
  }
}
