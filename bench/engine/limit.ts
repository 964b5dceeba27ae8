import type { Blas } from "./blas.js";
import { flopsOf, productsOf, type Product, type Size } from "./sizes.js";
import { fastest } from "./work.js";

export interface Limit {
  /** The work's matrix products alone, each timed on its own shape. */
  readonly ownShapesSeconds: number;
  /** The same arithmetic at the speed of a large product: more than any library reaches on small shapes. */
  readonly largeShapeSeconds: number;
  readonly gigaflopsPerSecond: number;
}

const LARGE: Product = { m: 768, n: 768, k: 768, count: 1 };

const ones = (length: number): Float32Array => new Float32Array(length).fill(1);

/** What a library's products would take. Chunks of a scan are shared out among threads, so each product of theirs has one thread. */
export function productLimit(size: Size, blas: Blas, threads: number, secondsPerShape: number): Limit {
  const time = ({ m, n, k }: Product, onThreads: number): number => {
    const [a, b, c] = [ones(m * k), ones(k * n), new Float32Array(m * n)];
    return fastest(secondsPerShape, () => blas.sgemm(onThreads, m, n, k, a, b, c));
  };
  const { dense, scan } = productsOf(size);
  const sum = (products: readonly Product[], of: (product: Product) => number): number =>
    products.reduce((total, product) => total + of(product), 0);
  const flopsPerSecond = flopsOf(LARGE) / time(LARGE, threads);
  return {
    ownShapesSeconds:
      sum(dense, (product) => product.count * time(product, threads)) +
      sum(scan, (product) => (product.count * time(product, 1)) / threads),
    largeShapeSeconds: sum([...dense, ...scan], flopsOf) / flopsPerSecond,
    gigaflopsPerSecond: flopsPerSecond / 1e9,
  };
}

/** Bytes of memory a second that a product of a matrix too large for any cache with a vector reads. */
export function memoryBytesPerSecond(blas: Blas, threads: number, seconds: number): number {
  const [rows, columns] = [50_288, 768];
  const [a, x, y] = [ones(rows * columns), ones(columns), new Float32Array(rows)];
  return (4 * rows * columns) / fastest(seconds, () => blas.sgemv(threads, rows, columns, a, x, y));
}
