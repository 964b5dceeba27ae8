// Matrix products on all threads.
#pragma once
#include "few-rows.h"

namespace SEGUE_VARIANT {

// On the calling thread, in the way that suits the shapes; all give the same bits.
static void one_product(Context* ctx, long m, long n, long k, Matrix a, Matrix b, float* c, long ldc, bool add) {
  if (has_few_rows(m, b)) return few_rows_product(ctx, m, n, k, a, b, c, ldc, add);
  gemm(ctx, m, n, k, a, b, c, ldc, add);
}

// C [m, n] (rows ldc apart) = A B, or +=, on all threads of the context: C is cut along its longer side, in two parts per thread lest
// one that is held up holds up all.
static void parallel_gemm(Context* ctx, long m, long n, long k, Matrix a, Matrix b, float* c, long ldc, bool add) {
  double work = (double)m * n * k / 16;
  if (!worth_threads(ctx, work)) return one_product(ctx, m, n, k, a, b, c, ldc, add);
  bool by_rows = m >= n;
  long side = by_rows ? m : n, tile = by_rows ? kTileRows : kTileCols;
  long part = round_up((side + 2 * ctx->threads - 1) / (2 * ctx->threads), tile);
  parallel_for(ctx, work, (side + part - 1) / part, [=](long i) {
    long first = i * part, size = min_long(part, side - first);
    if (by_rows)
      one_product(ctx, size, n, k, a.at(first, 0), b, c + first * ldc, ldc, add);
    else
      one_product(ctx, m, size, k, a, b.at(0, first), c + first, ldc, add);
  });
}

}  // namespace SEGUE_VARIANT

SEGUE_API void SEGUE_NAME(matmul)(Context* ctx, int m, int n, int k, const float* a, int transpose_a, const float* b,
                                  int transpose_b, float* c, int accumulate) {
  using namespace SEGUE_VARIANT;
  Matrix ma = transpose_a ? Matrix{a, 1, m} : Matrix{a, k, 1};
  Matrix mb = transpose_b ? Matrix{b, 1, k} : Matrix{b, n, 1};
  parallel_gemm(ctx, m, n, k, ma, mb, c, n, accumulate != 0);
}
