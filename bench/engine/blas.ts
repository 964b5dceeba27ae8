import koffi from "koffi";
import { openCpuDevice } from "../../packages/engine/src/devices/cpu/cpu-device.js";

/** Dense products to measure against. */
export interface Blas {
  readonly name: string;
  /** C [m, n] = A [m, k] B [k, n] on so many threads. */
  sgemm(threads: number, m: number, n: number, k: number, a: Float32Array, b: Float32Array, c: Float32Array): void;
  /** y [m] = A [m, n] x [n] */
  sgemv(threads: number, m: number, n: number, a: Float32Array, x: Float32Array, y: Float32Array): void;
}

/** Where Debian, Fedora and others put it, if the loader does not find it by itself. */
const PLACES = [
  "libopenblas.so.0",
  "libopenblas.so",
  ...["x86_64", "aarch64"].map((arch) => `/usr/lib/${arch}-linux-gnu/openblas-pthread/libopenblas.so.0`),
  "/usr/lib64/libopenblas.so.0",
];

/** Names as OpenBLAS has them, and as Python's numpy and scipy rename them. */
const NAMES = [
  ["", "", "int"],
  ["scipy_", "64_", "int64"],
] as const;

const ROW_MAJOR = 101;
const AS_IT_IS = 111;

/** OpenBLAS at `path` or where systems have it; undefined if it is nowhere. */
export function openBlas(path: string | undefined): Blas | undefined {
  for (const place of path === undefined ? PLACES : [path]) {
    for (const [prefix, suffix, integer] of NAMES) {
      try {
        return bindBlas(place, prefix, suffix, integer);
      } catch {
        continue;
      }
    }
  }
  if (path !== undefined) throw new Error(`no OpenBLAS at ${path}`);
  return undefined;
}

function bindBlas(path: string, prefix: string, suffix: string, integer: string): Blas {
  const library = koffi.load(path);
  const call = (name: string, ...args: string[]): ((...args: unknown[]) => unknown) =>
    library.func(`${prefix}${name}${suffix}`, "void", args);
  const version = library.func(`${prefix}openblas_get_config${suffix}`, "str", [])() as string;
  const setThreads = call("openblas_set_num_threads", "int");
  const matrix = ["float *", integer];
  const sgemm = call(
    "cblas_sgemm",
    "int",
    "int",
    "int",
    integer,
    integer,
    integer,
    "float",
    ...matrix,
    ...matrix,
    "float",
    ...matrix,
  );
  const sgemv = call("cblas_sgemv", "int", "int", integer, integer, "float", ...matrix, ...matrix, "float", ...matrix);
  return {
    name: version.trim(),
    sgemm: (threads, m, n, k, a, b, c) => {
      setThreads(threads);
      sgemm(ROW_MAJOR, AS_IT_IS, AS_IT_IS, m, n, k, 1, a, k, b, n, 0, c, n);
    },
    sgemv: (threads, m, n, a, x, y) => {
      setThreads(threads);
      sgemv(ROW_MAJOR, AS_IT_IS, m, n, 1, a, n, x, 1, 0, y, 1);
    },
  };
}

/** The engine's own products, to stand in where there is no OpenBLAS. */
export async function ownBlas(threads: readonly number[]): Promise<Blas> {
  const devices = new Map(await Promise.all([...threads, 1].map(async (count) => [count, await openCpuDevice(count)] as const)));
  return {
    name: "own kernels, for want of OpenBLAS",
    sgemm: (count, m, n, k, a, b, out) => devices.get(count)!.matmul({ m, n, k, a, b, out }),
    sgemv: (count, m, n, a, x, out) => devices.get(count)!.matmul({ m: 1, n: m, k: n, a: x, b: a, transposeB: true, out }),
  };
}
