import { SegueError } from "@segue/core";
import type { Address } from "./driver.js";
import { loadToolkit } from "./libraries.js";

export type Element = "f32" | "bf16";

export interface MatrixProduct {
  /** out [m, n] = op(a) [m, k] * op(b) [k, n], row-major; rows of `out` are `n` apart. */
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly a: Address;
  readonly b: Address;
  readonly out: Address;
  readonly transposeA: boolean;
  readonly transposeB: boolean;
  readonly accumulate: boolean;
  /** Of a and b. */
  readonly from: Element;
  readonly to: Element;
}

/** What is left to say at each call. */
interface Plan {
  readonly description: bigint;
  readonly layouts: readonly [a: bigint, b: bigint, out: bigint];
  readonly algorithm: Uint8Array;
}

const TYPE_CODES = { f32: 0, bf16: 14 } as const;
const ELEMENT_BYTES = { f32: 4, bf16: 2 } as const;
/** CUBLAS_COMPUTE_32F: float32 products are not shortened to TF32. */
const COMPUTE_F32 = 68;
const TRANSPOSE_A = 3;
const TRANSPOSE_B = 4;
const PREFER_WORKSPACE = 1;
const PREFER_REDUCTIONS = 3;
/** In the matrices' order: a, b, c, out. */
const PREFER_ALIGNMENTS = [5, 6, 7, 8] as const;
/** Partial sums of a split k are added up in float32 from the workspace, in order: the same bits every time. */
const REDUCE_IN_F32 = 2;

export const WORKSPACE_BYTES = 64 * 2 ** 20;

/** cublasLtMatmulHeuristicResult_t: the algorithm first, its status after the workspace's size. */
const HEURISTIC_BYTES = 96;
const ALGORITHM_BYTES = 64;
const STATUS_AT = 72;

type Call = (...args: unknown[]) => number;

/** cuBLASLt with one algorithm per kind of product, chosen once by its own heuristic, never by timing. */
export class CublasLt {
  readonly version: string;
  readonly #functions: Record<
    "descCreate" | "descSet" | "layoutCreate" | "preferCreate" | "preferSet" | "heuristic" | "matmul",
    Call
  >;
  readonly #destroy: Call;
  readonly #handle: bigint;
  readonly #workspace: Address;
  readonly #plans = new Map<string, Plan>();
  readonly #one = Float32Array.of(1);
  readonly #zero = Float32Array.of(0);

  /**
   * @param workspace {@link WORKSPACE_BYTES} of device memory, used by one stream only
   * @throws SegueError ENGINE_UNAVAILABLE without the library
   */
  constructor(workspace: Address, env: NodeJS.ProcessEnv) {
    const library = loadToolkit("cublasLt", env);
    const f = (name: string, parameters: string[]): Call => library.func(`cublasLt${name}`, "int", parameters) as Call;
    const version = (library.func("cublasLtGetVersion", "uint64", []) as () => number | bigint)();
    this.version = String(version);
    this.#functions = {
      descCreate: f("MatmulDescCreate", ["void *", "int", "int"]),
      descSet: f("MatmulDescSetAttribute", ["uint64", "int", "void *", "uint64"]),
      layoutCreate: f("MatrixLayoutCreate", ["void *", "int", "uint64", "uint64", "int64"]),
      preferCreate: f("MatmulPreferenceCreate", ["void *"]),
      preferSet: f("MatmulPreferenceSetAttribute", ["uint64", "int", "void *", "uint64"]),
      heuristic: f("MatmulAlgoGetHeuristic", [
        ...["uint64", "uint64", "uint64", "uint64", "uint64", "uint64", "uint64", "int"],
        ...["void *", "void *"],
      ]),
      matmul: f("Matmul", [
        ...["uint64", "uint64", "void *", "uint64", "uint64", "uint64", "uint64", "void *", "uint64", "uint64"],
        ...["uint64", "uint64", "void *", "uint64", "uint64", "uint64"],
      ]),
    };
    this.#destroy = f("Destroy", ["uint64"]);
    this.#workspace = workspace;
    this.#handle = this.#created("cublasLtCreate", f("Create", ["void *"]));
  }

  /** @throws SegueError CUDA_FAILED */
  multiply(product: MatrixProduct, stream: Address): void {
    const { description, layouts, algorithm } = this.#planOf(product);
    const [a, b, out] = layouts;
    this.#check(
      "cublasLtMatmul",
      this.#functions.matmul(
        ...[this.#handle, description, this.#one, product.b, b, product.a, a, product.accumulate ? this.#one : this.#zero],
        ...[product.out, out, product.out, out, algorithm, this.#workspace, WORKSPACE_BYTES, stream],
      ),
    );
  }

  close(): void {
    this.#destroy(this.#handle);
  }

  #planOf(product: MatrixProduct): Plan {
    const { m, n, k, transposeA, transposeB, from, to, accumulate } = product;
    const alignments = [product.a, product.b, product.out].map(alignmentOf);
    const key = [m, n, k, transposeA, transposeB, from, to, accumulate, ...alignments].join(" ");
    const known = this.#plans.get(key);
    if (known) return known;
    const plan = this.#makePlan(product, alignments);
    this.#plans.set(key, plan);
    return plan;
  }

  /** cuBLASLt is column-major: row-major out = a b is column-major out^T = b^T a^T, so b comes first and nothing is copied. */
  #makePlan({ m, n, k, transposeA, transposeB, from, to }: MatrixProduct, alignments: readonly number[]): Plan {
    const { descCreate, descSet, preferCreate, preferSet, heuristic } = this.#functions;
    const description = this.#created("cublasLtMatmulDescCreate", (out) => descCreate(out, COMPUTE_F32, TYPE_CODES.f32));
    const set = (attribute: number, value: number): void =>
      this.#check("cublasLtMatmulDescSetAttribute", descSet(description, attribute, Int32Array.of(value), 4));
    set(TRANSPOSE_A, transposeB ? 1 : 0);
    set(TRANSPOSE_B, transposeA ? 1 : 0);
    const layout = (element: Element, rows: number, columns: number): bigint =>
      this.#created("cublasLtMatrixLayoutCreate", (handle) =>
        // A row-major [rows, columns] matrix is a column-major [columns, rows] one.
        this.#functions.layoutCreate(handle, TYPE_CODES[element], columns, rows, columns),
      );
    const a = transposeA ? layout(from, k, m) : layout(from, m, k);
    const b = transposeB ? layout(from, n, k) : layout(from, k, n);
    const out = layout(to, m, n);

    const preference = this.#created("cublasLtMatmulPreferenceCreate", preferCreate);
    const prefer = (attribute: number, value: ArrayBufferView): void =>
      this.#check("cublasLtMatmulPreferenceSetAttribute", preferSet(preference, attribute, value, value.byteLength));
    prefer(PREFER_WORKSPACE, BigUint64Array.of(BigInt(WORKSPACE_BYTES)));
    prefer(PREFER_REDUCTIONS, Uint32Array.of(REDUCE_IN_F32));
    const [ofA, ofB, ofOut] = alignments as [number, number, number];
    [ofB, ofA, ofOut, ofOut].forEach((bytes, i) => prefer(PREFER_ALIGNMENTS[i]!, Uint32Array.of(bytes)));
    const result = new Uint8Array(HEURISTIC_BYTES);
    const found = new Int32Array(1);
    const status = heuristic(this.#handle, description, b, a, out, out, preference, 1, result, found);
    if (status !== 0 || found[0] === 0 || new DataView(result.buffer).getInt32(STATUS_AT, true) !== 0) {
      const shape = `${m} x ${n} x ${k}, ${ELEMENT_BYTES[from]}-byte elements`;
      throw new SegueError("CUDA_FAILED", `cuBLASLt has no algorithm for a product of ${shape} (status ${status})`, {
        status: "INTERNAL",
      });
    }
    return { description, layouts: [a, b, out], algorithm: result.slice(0, ALGORITHM_BYTES) };
  }

  #created(name: string, create: (out: BigUint64Array) => number): bigint {
    const out = new BigUint64Array(1);
    this.#check(name, create(out));
    return out[0]!;
  }

  #check(name: string, status: number): void {
    if (status !== 0) throw new SegueError("CUDA_FAILED", `${name}: cuBLAS status ${status}`, { status: "INTERNAL" });
  }
}

const MOST_ALIGNED = 256;

function alignmentOf(address: Address): number {
  let alignment = MOST_ALIGNED;
  while (address % alignment !== 0) alignment /= 2;
  return alignment;
}
