import type { Tensor, Tensor1D, Tensor2D, Tensor3D } from "@tensorflow/tfjs";
import type { LoadedTensorFlow, TensorFlow } from "./tensorflow.js";

/**
 * The few operations for which stock TensorFlow.js is slow, or has no gradient, on the WASM backend. There, one untransposed product
 * of two matrices is fast, and anything batched or transposed 10 to 25 times slower; sums over leading axes transpose first.
 * Every function is differentiable. R rows, A and O widths, V vocabulary, n matrices of a batch.
 */
export interface Operations {
  readonly tf: TensorFlow;
  /** x W^T. */
  readonly linear: (x_RA: Tensor2D, weight_OA: Tensor2D) => Tensor2D;
  /** Product of each pair of matrices; a transposed operand is stored the other way round. */
  readonly batchedProduct: (a: Tensor3D, b: Tensor3D, transposeA: boolean, transposeB: boolean) => Tensor3D;
  /** Every row times `scale_A`, element by element. */
  readonly scaleRows: (x_RA: Tensor2D, scale_A: Tensor1D) => Tensor2D;
  /** `bias_A` added to every row. */
  readonly addToRows: (x_RA: Tensor2D, bias_A: Tensor1D) => Tensor2D;
  /** Rows of the table. */
  readonly embed: (table_VA: Tensor2D, ids_R: Int32Array) => Tensor2D;
  /** Cross-entropy of each row's label. */
  readonly crossEntropy: (logits_RV: Tensor2D, labels_R: Int32Array) => Tensor1D;
}

/** A matrix product is worth its own call from this many multiplications on; below, the calls cost more than they save. */
const BLOCK_MULTIPLICATIONS = 8192;

export function createOperations({ tf, variant }: LoadedTensorFlow): Operations {
  /** A differentiable function of two tensors; the gradient gets dy, then both inputs. */
  const differentiable = <A extends Tensor, B extends Tensor, Y extends Tensor>(
    forward: (a: A, b: B) => Y,
    gradient: (dy: Y, a: A, b: B) => [Tensor, Tensor],
  ): ((a: A, b: B) => Y) =>
    tf.customGrad((...inputs) => {
      const [a, b, save] = inputs as [A, B, (tensors: Tensor[]) => void];
      save([a, b]);
      return { value: forward(a, b), gradFunc: (dy: Y, saved: Tensor[]) => gradient(dy, saved[0] as A, saved[1] as B) };
    });

  const columnSums = (x_RA: Tensor2D): Tensor1D => tf.reshape(tf.matMul(tf.ones([1, x_RA.shape[0]]), x_RA), [x_RA.shape[1]]);

  const linear = differentiable<Tensor2D, Tensor2D, Tensor2D>(
    (x_RA, weight_OA) => tf.matMul(x_RA, tf.transpose(weight_OA)),
    (dy_RO, x_RA, weight_OA) => {
      const narrowInput = x_RA.shape[1] <= dy_RO.shape[1];
      const dWeight = narrowInput
        ? tf.transpose(tf.matMul(tf.transpose(x_RA), dy_RO))
        : tf.matMul(tf.transpose<Tensor2D>(dy_RO), x_RA);
      return [tf.matMul(dy_RO, weight_OA), dWeight];
    },
  );

  const product = (a: Tensor3D, b: Tensor3D, transposeA: boolean, transposeB: boolean): Tensor3D => {
    const [, rows, inner, columns] = productShape(a, b, transposeA, transposeB);
    return variant === "wasm" && rows * inner * columns >= BLOCK_MULTIPLICATIONS
      ? productByBlocks(tf, a, b, transposeA, transposeB)
      : tf.matMul(a, b, transposeA, transposeB);
  };

  const batchedProduct = (a: Tensor3D, b: Tensor3D, transposeA: boolean, transposeB: boolean): Tensor3D =>
    differentiable<Tensor3D, Tensor3D, Tensor3D>(
      (left, right) => product(left, right, transposeA, transposeB),
      (dy, left, right) => [
        transposeA ? product(right, dy, transposeB, true) : product(dy, right, false, !transposeB),
        transposeB ? product(dy, left, true, transposeA) : product(left, dy, !transposeA, false),
      ],
    )(a, b);

  const scaleRows = differentiable<Tensor2D, Tensor1D, Tensor2D>(
    (x_RA, scale_A) => tf.mul(x_RA, scale_A),
    (dy_RA, x_RA, scale_A) => [tf.mul(dy_RA, scale_A), columnSums(tf.mul(dy_RA, x_RA))],
  );

  const addToRows = differentiable<Tensor2D, Tensor1D, Tensor2D>(
    (x_RA, bias_A) => tf.add(x_RA, bias_A),
    (dy_RA) => [tf.clone(dy_RA), columnSums(dy_RA)],
  );

  const embed = (table_VA: Tensor2D, ids_R: Int32Array): Tensor2D =>
    tf.customGrad((table) => ({
      value: tf.gather(table as Tensor2D, tf.tensor1d(ids_R, "int32")),
      gradFunc: (dy: Tensor2D) => tf.tensor2d(scatterAddRows(dy.dataSync<"float32">(), ids_R, table_VA.shape), table_VA.shape),
    }))(table_VA);

  const crossEntropy = (logits_RV: Tensor2D, labels_R: Int32Array): Tensor1D =>
    tf.customGrad((...inputs) => {
      const [logits, save] = inputs as [Tensor2D, (tensors: Tensor[]) => void];
      const shifted_RV = tf.sub(logits, tf.max(logits, 1, true));
      const exponents_RV = tf.exp(shifted_RV);
      const sums_R1 = tf.sum(exponents_RV, 1, true);
      const isLabel_RV = tf.cast(tf.oneHot(tf.tensor1d(labels_R, "int32"), logits.shape[1]), "float32");
      const label_R = tf.sum(tf.mul(shifted_RV, isLabel_RV), 1);
      save([tf.sub(tf.div(exponents_RV, sums_R1), isLabel_RV)]);
      return {
        value: tf.sub(tf.log(tf.reshape(sums_R1, [-1])), label_R),
        gradFunc: (dy_R: Tensor, saved: Tensor[]) => tf.mul(saved[0] as Tensor2D, tf.reshape(dy_R, [-1, 1])),
      };
    })(logits_RV) as Tensor1D;

  return { tf, linear, batchedProduct, scaleRows, addToRows, embed, crossEntropy };
}

function productShape(a: Tensor3D, b: Tensor3D, transposeA: boolean, transposeB: boolean): [number, number, number, number] {
  const [count, first, second] = a.shape;
  return [count, transposeA ? second : first, transposeA ? first : second, transposeB ? b.shape[1] : b.shape[2]];
}

/** One fast product per pair. Operands pass through JavaScript because slicing a WASM tensor copies all of it each time. */
function productByBlocks(tf: TensorFlow, a: Tensor3D, b: Tensor3D, transposeA: boolean, transposeB: boolean): Tensor3D {
  const [count, rows, inner, columns] = productShape(a, b, transposeA, transposeB);
  const left = a.dataSync<"float32">();
  const right = b.dataSync<"float32">();
  const leftBlock = new Float32Array(rows * inner);
  const rightBlock = new Float32Array(inner * columns);
  const products: Tensor2D[] = [];
  for (let i = 0; i < count; i++) {
    copyMatrix(left, i * leftBlock.length, leftBlock, rows, inner, transposeA);
    copyMatrix(right, i * rightBlock.length, rightBlock, inner, columns, transposeB);
    const leftMatrix = tf.tensor2d(leftBlock, [rows, inner]);
    const rightMatrix = tf.tensor2d(rightBlock, [inner, columns]);
    products.push(tf.matMul(leftMatrix, rightMatrix));
    leftMatrix.dispose();
    rightMatrix.dispose();
  }
  return tf.reshape(tf.concat(products, 0), [count, rows, columns]);
}

/** Copies a [rows, columns] matrix out of `from`, where it is stored transposed if `transposed`. */
function copyMatrix(
  from: Float32Array,
  offset: number,
  to: Float32Array,
  rows: number,
  columns: number,
  transposed: boolean,
): void {
  if (!transposed) {
    to.set(from.subarray(offset, offset + rows * columns));
    return;
  }
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) to[row * columns + column] = from[offset + column * rows + row] as number;
  }
}

/** out[ids[r]] += rows[r], in row order. */
function scatterAddRows(rows_RA: Float32Array, ids_R: Int32Array, shape: readonly [number, number]): Float32Array {
  const [vocab, width] = shape;
  const out = new Float32Array(vocab * width);
  ids_R.forEach((id, row) => {
    for (let i = 0; i < width; i++) out[id * width + i] = (out[id * width + i] as number) + (rows_RA[row * width + i] as number);
  });
  return out;
}
