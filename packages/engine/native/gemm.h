// Matrix products. Each element of C is one chain of multiply-adds over k, cut at fixed multiples of kDepth, whatever the tiling
// and the threads: that is what makes the bits independent of both.
#pragma once
#include "common.h"

namespace SEGUE_VARIANT {

// Rows and vectors of the register tile.
#if defined(__AVX512F__)
constexpr int kTileRows = 12, kTileVecs = 2;
#else
constexpr int kTileRows = 4, kTileVecs = 2;
#endif
constexpr int kTileCols = kTileVecs * kWidth;
// Extents of the packed blocks: depth (k), rows of A, columns of B.
constexpr long kDepth = 256, kBlockRows = kTileRows * 16, kBlockCols = kTileCols * 32;

constexpr int kSlotPackedA = 0, kSlotPackedB = 1;

// A matrix whose element (i, j) is data[i * row + j * col]; one of the strides is 1.
struct Matrix {
  const float* data;
  long row, col;
  Matrix at(long i, long j) const { return {data + i * row + j * col, row, col}; }
  Matrix transposed() const { return {data, col, row}; }
};

// C tile of `rows` x `vecs` vectors from packed panels: a [depth][kTileRows], b [depth][kTileCols].
template <int rows, int vecs>
static inline void packed_tile(long depth, const float* __restrict a, const float* __restrict b, float* __restrict c, long ldc,
                               bool add) {
  Vec sum[rows][vecs];
  for (int i = 0; i < rows; i++) {
    for (int j = 0; j < vecs; j++) sum[i][j] = Vec{};
  }
  for (long k = 0; k < depth; k++) {
    Vec bk[vecs];
    for (int j = 0; j < vecs; j++) bk[j] = load(b + j * kWidth);
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
      float ak = a[i];
#pragma GCC unroll 4
      for (int j = 0; j < vecs; j++) sum[i][j] += ak * bk[j];
    }
    a += kTileRows;
    b += kTileCols;
  }
  for (int i = 0; i < rows; i++) {
    for (int j = 0; j < vecs; j++) {
      float* p = c + i * ldc + j * kWidth;
      store(p, add ? load(p) + sum[i][j] : sum[i][j]);
    }
  }
}

typedef float Quad __attribute__((vector_size(16)));
typedef float UnalignedQuad __attribute__((vector_size(16), aligned(4), may_alias));

static inline Quad load_quad(const float* p) { return *(const UnalignedQuad*)p; }

// out[k * stride + i] = in[i * row + k] for i, k < 4
static inline void transpose_quads(const float* in, long row, float* out, long stride) {
  Quad a = load_quad(in), b = load_quad(in + row), c = load_quad(in + 2 * row), d = load_quad(in + 3 * row);
  typedef int Order __attribute__((vector_size(16)));
  const Order low = {0, 4, 1, 5}, high = {2, 6, 3, 7}, first = {0, 1, 4, 5}, second = {2, 3, 6, 7};
  Quad ab0 = __builtin_shuffle(a, b, low), ab1 = __builtin_shuffle(a, b, high);
  Quad cd0 = __builtin_shuffle(c, d, low), cd1 = __builtin_shuffle(c, d, high);
  *(UnalignedQuad*)(out) = __builtin_shuffle(ab0, cd0, first);
  *(UnalignedQuad*)(out + stride) = __builtin_shuffle(ab0, cd0, second);
  *(UnalignedQuad*)(out + 2 * stride) = __builtin_shuffle(ab1, cd1, first);
  *(UnalignedQuad*)(out + 3 * stride) = __builtin_shuffle(ab1, cd1, second);
}

// Panels of `panel` rows of m [rows, depth], each stored [depth][panel]; missing rows are zero.
template <int panel>
static void pack(long rows, long depth, Matrix m, float* out) {
  for (long i0 = 0; i0 < rows; i0 += panel, out += panel * depth) {
    long live = min_long(panel, rows - i0);
    const float* in = m.data + i0 * m.row;
    if (live == panel && m.row == 1) {
      for (long k = 0; k < depth; k++) {
        for (int i = 0; i < panel; i++) out[k * panel + i] = in[k * m.col + i];
      }
      continue;
    }
    long k = 0;
    if (panel % 4 == 0 && live == panel && m.col == 1) {
      for (; k + 4 <= depth; k += 4) {
        for (int i = 0; i < panel; i += 4) transpose_quads(in + i * m.row + k, m.row, out + k * panel + i, panel);
      }
    }
    for (; k < depth; k++) {
      for (int i = 0; i < panel; i++) out[k * panel + i] = i < live ? in[i * m.row + k * m.col] : 0.f;
    }
  }
}

template <int vecs>
static inline void packed_rows(long rows, long depth, const float* a, const float* b, float* c, long ldc, bool add) {
  if (rows == kTileRows) return packed_tile<kTileRows, vecs>(depth, a, b, c, ldc, add);
  while (rows >= 4) {
    packed_tile<4, vecs>(depth, a, b, c, ldc, add);
    a += 4, c += 4 * ldc, rows -= 4;
  }
  for (; rows > 0; a++, c += ldc, rows--) packed_tile<1, vecs>(depth, a, b, c, ldc, add);
}

// One tile of C with `rows` x `cols` of it wanted.
static inline void tile_of(long rows, long cols, long depth, const float* a, const float* b, float* c, long ldc, bool add) {
  if (cols == kTileCols) return packed_rows<kTileVecs>(rows, depth, a, b, c, ldc, add);
  if (cols == kWidth) return packed_rows<1>(rows, depth, a, b, c, ldc, add);
  float whole[kTileRows * kTileCols];
  packed_rows<kTileVecs>(rows, depth, a, b, whole, kTileCols, false);
  for (long i = 0; i < rows; i++) {
    for (long j = 0; j < cols; j++) c[i * ldc + j] = add ? c[i * ldc + j] + whole[i * kTileCols + j] : whole[i * kTileCols + j];
  }
}

// C [m, n] (rows ldc apart) = A B, or += ; on the calling thread.
static void gemm(Context* ctx, long m, long n, long k, Matrix a, Matrix b, float* c, long ldc, bool add) {
  for (long j0 = 0; j0 < n; j0 += kBlockCols) {
    long cols = min_long(kBlockCols, n - j0);
    for (long k0 = 0; k0 < k; k0 += kDepth) {
      long depth = min_long(kDepth, k - k0);
      float* packed_b = my_scratch(ctx, kSlotPackedB, kBlockCols * kDepth);
      pack<kTileCols>(cols, depth, b.at(k0, j0).transposed(), packed_b);
      for (long i0 = 0; i0 < m; i0 += kBlockRows) {
        long rows = min_long(kBlockRows, m - i0);
        float* packed_a = my_scratch(ctx, kSlotPackedA, kBlockRows * kDepth);
        pack<kTileRows>(rows, depth, a.at(i0, k0), packed_a);
        for (long j = 0; j < cols; j += kTileCols) {
          for (long i = 0; i < rows; i += kTileRows) {
            tile_of(min_long(kTileRows, rows - i), min_long(kTileCols, cols - j), depth, packed_a + i * depth, packed_b + j * depth,
                    c + (i0 + i) * ldc + j0 + j, ldc, add || k0 > 0);
          }
        }
      }
    }
  }
}

// Register tile for small products whose operands lie in cache: nothing is packed. C [rows, vecs vectors] = A B.
#if defined(__AVX512F__)
constexpr int kSmallRows = 8;
#else
constexpr int kSmallRows = 4;
#endif

template <int rows, int vecs>
static inline void small_tile(long depth, Matrix a, const float* b, long ldb, float* c, long ldc) {
  Vec sum[rows][vecs];
  for (int i = 0; i < rows; i++) {
    for (int j = 0; j < vecs; j++) sum[i][j] = Vec{};
  }
  for (long k = 0; k < depth; k++) {
    Vec bk[vecs];
    for (int j = 0; j < vecs; j++) bk[j] = load(b + k * ldb + j * kWidth);
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
      float ak = a.data[i * a.row + k * a.col];
#pragma GCC unroll 4
      for (int j = 0; j < vecs; j++) sum[i][j] += ak * bk[j];
    }
  }
  for (int i = 0; i < rows; i++) {
    for (int j = 0; j < vecs; j++) store(c + i * ldc + j * kWidth, sum[i][j]);
  }
}

// `rows` rows of C; cols is a multiple of kWidth.
template <int rows>
static inline void small_rows(long cols, long depth, Matrix a, const float* b, long ldb, float* c, long ldc) {
  long j = 0;
  for (; j + 2 * kWidth <= cols; j += 2 * kWidth) small_tile<rows, 2>(depth, a, b + j, ldb, c + j, ldc);
  if (j < cols) small_tile<rows, 1>(depth, a, b + j, ldb, c + j, ldc);
}

// C = A B on the calling thread, without packing where B is small enough to be read from cache again and again.
static void small_product(Context* ctx, long m, long n, long k, Matrix a, Matrix b, float* c, long ldc) {
  if (b.col != 1 || n % kWidth != 0 || n * k > 1 << 17) return gemm(ctx, m, n, k, a, b, c, ldc, false);
  long i = 0;
  for (; i + kSmallRows <= m; i += kSmallRows) small_rows<kSmallRows>(n, k, a.at(i, 0), b.data, b.row, c + i * ldc, ldc);
  for (; i < m; i++) small_rows<1>(n, k, a.at(i, 0), b.data, b.row, c + i * ldc, ldc);
}

}  // namespace SEGUE_VARIANT
