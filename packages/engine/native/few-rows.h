// Products of a few rows with a matrix stored row by output column: the weights of a decode step. Every weight is used only a few
// times, so memory sets the speed; weights are not packed but turned in registers. Bits are those of gemm.
#pragma once
#include "gemm.h"

namespace SEGUE_VARIANT {

constexpr long kFewRows = 32;
// How far ahead weights are fetched along each row.
constexpr long kAhead = 256;

// Exchanges lanes with bit `step` set of v[i] for those without of v[i + step].
template <int step>
static inline void exchange_lanes(Vec* v) {
  const IntVec lane = lane_numbers(), upper = (lane & step) != 0;
  const IntVec low = lane + (upper & (kWidth - step)), high = low + step;
  for (int i = 0; i < kWidth; i++) {
    if (i & step) continue;
    Vec a = v[i], b = v[i + step];
    v[i] = __builtin_shuffle(a, b, low);
    v[i + step] = __builtin_shuffle(a, b, high);
  }
}

// v[i][j] = v[j][i]
static inline void transpose_square(Vec* v) {
  exchange_lanes<1>(v);
  exchange_lanes<2>(v);
  if constexpr (kWidth > 4) exchange_lanes<4>(v);
  if constexpr (kWidth > 8) exchange_lanes<8>(v);
}

// kWidth columns of C, `live` rows of it: c[i][j] = or += sum over k of a[k][i] w[j][k]. a is a packed panel of `rows` rows.
template <int rows>
static inline void few_rows_tile(long live, long depth, const float* a, const float* w, long ldw, float* c, long ldc, bool add) {
  for (long k0 = 0; k0 < depth; k0 += kDepth) {
    const long end = min_long(k0 + kDepth, depth);
    Vec sum[rows];
    for (int i = 0; i < rows; i++) sum[i] = Vec{};
    long k = k0;
    for (; k + kWidth <= end; k += kWidth) {
      Vec square[kWidth];
#pragma GCC unroll 16
      for (int j = 0; j < kWidth; j++) {
        square[j] = load(w + j * ldw + k);
        __builtin_prefetch(w + j * ldw + k + kAhead);
      }
      transpose_square(square);
#pragma GCC unroll 16
      for (int j = 0; j < kWidth; j++) {
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) sum[i] += a[(k + j) * rows + i] * square[j];
      }
    }
    for (; k < end; k++) {
      Vec column;
      for (int j = 0; j < kWidth; j++) column[j] = w[j * ldw + k];
      for (int i = 0; i < rows; i++) sum[i] += a[k * rows + i] * column;
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
      if (i < live) store(c + i * ldc, add || k0 > 0 ? load(c + i * ldc) + sum[i] : sum[i]);
    }
  }
}

// Whether few_rows_product does what gemm would do.
static inline bool has_few_rows(long m, Matrix b) { return m <= kFewRows && b.row == 1; }

template <int rows>
static void few_rows_panels(Context* ctx, long m, long n, long k, Matrix a, Matrix b, float* c, long ldc, bool add) {
  float* packed = my_scratch(ctx, kSlotPackedA, max_long(kBlockRows * kDepth, round_up(m, rows) * k));
  pack<rows>(m, k, a, packed);
  const long whole = n / kWidth * kWidth;
  for (long j = 0; j < whole; j += kWidth) {
    // All panels of a before the next columns: the weights come from memory once.
    for (long i = 0; i < m; i += rows)
      few_rows_tile<rows>(m - i, k, packed + i * k, b.data + j * b.col, b.col, c + i * ldc + j, ldc, add);
  }
  if (whole < n) gemm(ctx, m, n - whole, k, a, b.at(0, whole), c + whole, ldc, add);
}

// C [m, n] (rows ldc apart) = A B, or += ; on the calling thread.
static void few_rows_product(Context* ctx, long m, long n, long k, Matrix a, Matrix b, float* c, long ldc, bool add) {
  if (m > 4) return few_rows_panels<8>(ctx, m, n, k, a, b, c, ldc, add);
  if (m > 1) return few_rows_panels<4>(ctx, m, n, k, a, b, c, ldc, add);
  few_rows_panels<1>(ctx, m, n, k, a, b, c, ldc, add);
}

}  // namespace SEGUE_VARIANT
