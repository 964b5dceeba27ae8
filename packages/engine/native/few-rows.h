// Products of a few rows with a matrix stored row by output column: the weights of a decode step. Every weight is used only once or
// a few times, so the memory sets the speed; nothing is packed. Bits are those of gemm.
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

// kWidth columns of C, `live` of them wanted: c[i][j] = or += sum over k of a[i][k] w[j][k].
template <int rows>
static inline void few_rows_tile(long depth, const float* const* a, const float* const* w, float* const* c, long live, bool add) {
  Vec total[rows];
  for (int i = 0; i < rows; i++) total[i] = add ? load_part(c[i], live) : Vec{};
  for (long k0 = 0; k0 < depth; k0 += kDepth) {
    const long end = min_long(k0 + kDepth, depth);
    Vec sum[rows];
    for (int i = 0; i < rows; i++) sum[i] = Vec{};
    long k = k0;
    for (; k + kWidth <= end; k += kWidth) {
      Vec square[kWidth];
#pragma GCC unroll 16
      for (int j = 0; j < kWidth; j++) {
        square[j] = load(w[j] + k);
        __builtin_prefetch(w[j] + k + kAhead);
      }
      transpose_square(square);
#pragma GCC unroll 16
      for (int j = 0; j < kWidth; j++) {
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) sum[i] += a[i][k + j] * square[j];
      }
    }
    for (; k < end; k++) {
      Vec column;
      for (int j = 0; j < kWidth; j++) column[j] = w[j][k];
      for (int i = 0; i < rows; i++) sum[i] += a[i][k] * column;
    }
    for (int i = 0; i < rows; i++) total[i] = add || k0 > 0 ? total[i] + sum[i] : sum[i];
  }
  for (int i = 0; i < rows; i++) store_part(c[i], live, total[i]);
}

// The same for rows [i0, i0 + rows) of m; what is not there is computed as the last row that is.
template <int rows>
static inline void few_rows_strip(long m, long i0, long k, Matrix a, const float* const* w, float* c, long ldc, long live, bool add) {
  const float* a_rows[rows];
  float* c_rows[rows];
  for (long i = 0; i < rows; i++) {
    long row = min_long(i0 + i, m - 1);
    a_rows[i] = a.data + row * a.row;
    c_rows[i] = c + row * ldc;
  }
  few_rows_tile<rows>(k, a_rows, w, c_rows, live, add);
}

static inline bool has_few_rows(long m, Matrix a, Matrix b) { return m <= kFewRows && a.col == 1 && b.row == 1; }

// C [m, n] (rows ldc apart) = A B, or +=; on the calling thread.
static void few_rows_product(long m, long n, long k, Matrix a, Matrix b, float* c, long ldc, bool add) {
  for (long j0 = 0; j0 < n; j0 += kWidth) {
    const float* w[kWidth];
    for (long j = 0; j < kWidth; j++) w[j] = b.data + min_long(j0 + j, n - 1) * b.col;
    long live = min_long(kWidth, n - j0), i0 = 0;
    for (; m - i0 > 4; i0 += 8) few_rows_strip<8>(m, i0, k, a, w, c + j0, ldc, live, add);
    if (m - i0 > 2) few_rows_strip<4>(m, i0, k, a, w, c + j0, ldc, live, add);
    else if (m - i0 > 1) few_rows_strip<2>(m, i0, k, a, w, c + j0, ldc, live, add);
    else if (m - i0 > 0) few_rows_strip<1>(m, i0, k, a, w, c + j0, ldc, live, add);
  }
}

}  // namespace SEGUE_VARIANT
