/**
 * Makes golden/ssd: scans computed in float64 one token after the other, straight from h_t = exp(dt_t A) h_{t-1} + dt_t x_t (outer) B_t,
 * y_t = h_t C_t + D x_t with dt = softplus(raw + bias), and their gradients, which are held against central differences of the loss before
 * anything is written. Shares no code with the devices.
 *
 *     npx tsx --conditions=segue-source packages/engine/test/make-ssd-golden.ts
 */
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { encodeSafetensors, randomStream, type SafetensorsTensor } from "@segue/core";

interface Shape {
  readonly batch: number;
  readonly time: number;
  readonly heads: number;
  readonly head_dim: number;
  readonly state: number;
  readonly groups: number;
}

const SHAPES: readonly Shape[] = [
  { batch: 2, time: 50, heads: 4, head_dim: 16, state: 16, groups: 1 },
  { batch: 1, time: 61, heads: 6, head_dim: 7, state: 20, groups: 2 },
  { batch: 1, time: 130, heads: 2, head_dim: 32, state: 64, groups: 1 },
];

type Values = Record<string, Float64Array>;

function dimensions({ batch, time, heads, head_dim, state, groups }: Shape): Record<string, number[]> {
  const x = [batch, time, heads, head_dim];
  const bc = [batch, time, groups, state];
  const states = [batch, heads, head_dim, state];
  return {
    ...{ x, dt: [batch, time, heads], A: [heads], B: bc, C: bc, D: [heads], dt_bias: [heads], initial_state: states },
    ...{ weight_y: x, weight_final_state: states },
  };
}

const RESULT_LIKE: Record<string, string> = { y: "x", final_state: "initial_state" };
const size = (shape: readonly number[]): number => shape.reduce((product, n) => product * n, 1);
const softplus = (x: number): number => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

/** Random inputs, rounded to float32 so that the file holds exactly what was computed with. */
function randomInputs(shape: Shape, index: number): Values {
  const draw = (name: string, dims: readonly number[]): Float64Array => {
    const random = randomStream(20, "ssd", index, name);
    const value = (): number => {
      if (name === "A") return -0.3 - 3 * random.uniform();
      if (name === "dt_bias") return -2 + 0.5 * random.normal();
      return random.normal();
    };
    return Float64Array.from({ length: size(dims) }, () => Math.fround(value()));
  };
  return Object.fromEntries(Object.entries(dimensions(shape)).map(([name, dims]) => [name, draw(name, dims)]));
}

/** Calls `visit` for every scalar recurrence h of the scan with the indices of what it touches. */
function forRecurrences(shape: Shape, visit: (at: { b: number; h: number; p: number; n: number; cell: number }) => void): void {
  const { batch, heads, head_dim, state } = shape;
  for (let b = 0, cell = 0; b < batch; b++)
    for (let h = 0; h < heads; h++)
      for (let p = 0; p < head_dim; p++) for (let n = 0; n < state; n++, cell++) visit({ b, h, p, n, cell });
}

function indices(shape: Shape, b: number, t: number, h: number, p: number, n: number): { row: number; x: number; bc: number } {
  const row = (b * shape.time + t) * shape.heads + h;
  const group = Math.floor((h * shape.groups) / shape.heads);
  return { row, x: row * shape.head_dim + p, bc: ((b * shape.time + t) * shape.groups + group) * shape.state + n };
}

function forward(shape: Shape, v: Values): { y: Float64Array; final_state: Float64Array; loss: number } {
  const y = v["x"]!.map((x, i) => x * v["D"]![Math.floor(i / shape.head_dim) % shape.heads]!);
  const final_state = new Float64Array(v["initial_state"]!.length);
  forRecurrences(shape, ({ b, h, p, n, cell }) => {
    let state = v["initial_state"]![cell]!;
    for (let t = 0; t < shape.time; t++) {
      const { row, x, bc } = indices(shape, b, t, h, p, n);
      const dt = softplus(v["dt"]![row]! + v["dt_bias"]![h]!);
      state = Math.exp(dt * v["A"]![h]!) * state + dt * v["x"]![x]! * v["B"]![bc]!;
      y[x] = y[x]! + state * v["C"]![bc]!;
    }
    final_state[cell] = state;
  });
  const weighted = (values: Float64Array, weights: Float64Array): number => values.reduce((sum, a, i) => sum + a * weights[i]!, 0);
  return { y, final_state, loss: weighted(y, v["weight_y"]!) + weighted(final_state, v["weight_final_state"]!) };
}

function backward(shape: Shape, v: Values): Values {
  const { time, heads, head_dim } = shape;
  const names = ["x", "dt", "A", "B", "C", "D", "dt_bias", "initial_state"];
  const d = Object.fromEntries(names.map((name) => [name, new Float64Array(v[name]!.length)]));
  const add = (name: string, i: number, value: number): void => void (d[name]![i] = d[name]![i]! + value);
  v["x"]!.forEach((x, i) => {
    const h = Math.floor(i / head_dim) % heads;
    add("x", i, v["D"]![h]! * v["weight_y"]![i]!);
    add("D", h, x * v["weight_y"]![i]!);
  });
  const before = new Float64Array(time);
  forRecurrences(shape, ({ b, h, p, n, cell }) => {
    const a = v["A"]![h]!;
    let state = v["initial_state"]![cell]!;
    const step = (t: number): { row: number; x: number; bc: number; raw: number; dt: number; decay: number } => {
      const at = indices(shape, b, t, h, p, n);
      const raw = v["dt"]![at.row]! + v["dt_bias"]![h]!;
      const dt = softplus(raw);
      return { ...at, raw, dt, decay: Math.exp(dt * a) };
    };
    for (let t = 0; t < time; t++) {
      const { x, bc, dt, decay } = step(t);
      before[t] = state;
      state = decay * state + dt * v["x"]![x]! * v["B"]![bc]!;
    }
    let g = v["weight_final_state"]![cell]!;
    for (let t = time - 1; t >= 0; t--) {
      const { row, x, bc, raw, dt, decay } = step(t);
      const [xt, bt] = [v["x"]![x]!, v["B"]![bc]!];
      const after = decay * before[t]! + dt * xt * bt;
      add("C", bc, after * v["weight_y"]![x]!);
      g += v["weight_y"]![x]! * v["C"]![bc]!;
      const dRaw = (g * (a * decay * before[t]! + xt * bt)) / (1 + Math.exp(-raw));
      add("dt", row, dRaw);
      add("dt_bias", h, dRaw);
      add("A", h, g * dt * decay * before[t]!);
      add("x", x, g * dt * bt);
      add("B", bc, g * dt * xt);
      g *= decay;
    }
    add("initial_state", cell, g);
  });
  return d;
}

/** Central differences along one random direction per input. */
function expectSlopes(shape: Shape, inputs: Values, gradients: Values, index: number): void {
  for (const [name, gradient] of Object.entries(gradients)) {
    const random = randomStream(21, "direction", index, name);
    const direction = gradient.map(() => random.normal());
    const step = 1e-5;
    const lossAt = (distance: number): number =>
      forward(shape, { ...inputs, [name]: inputs[name]!.map((value, i) => value + distance * direction[i]!) }).loss;
    const slope = (lossAt(step) - lossAt(-step)) / (2 * step);
    const expected = gradient.reduce((sum, g, i) => sum + g * direction[i]!, 0);
    assert.ok(Math.abs(slope - expected) < 1e-7 * Math.hypot(...gradient), `${index}.grad.${name}: ${expected}, slope ${slope}`);
  }
}

const tensors: SafetensorsTensor[] = [];
SHAPES.forEach((shape, index) => {
  const dims = dimensions(shape);
  const inputs = randomInputs(shape, index);
  const { y, final_state } = forward(shape, inputs);
  const gradients = backward(shape, inputs);
  expectSlopes(shape, inputs, gradients, index);
  const named = { ...inputs, y, final_state, ...Object.fromEntries(Object.entries(gradients).map(([n, g]) => [`grad.${n}`, g])) };
  for (const [name, values] of Object.entries(named)) {
    const like = name.replace("grad.", "");
    const data = new Uint8Array(Float32Array.from(values).buffer);
    tensors.push({ name: `${index}.${name}`, dtype: "F32", shape: dims[RESULT_LIKE[like] ?? like]!, data });
  }
});
const folder = new URL("golden/ssd/", import.meta.url);
mkdirSync(folder, { recursive: true });
writeFileSync(new URL("config.json", folder), `${JSON.stringify({ shapes: SHAPES }, null, 2)}\n`);
writeFileSync(new URL("golden.safetensors", folder), encodeSafetensors(tensors));
