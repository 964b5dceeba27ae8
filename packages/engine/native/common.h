// What every kernel shares: vectors of the variant's width, elementary functions on them, scratch memory, fixed blocks.
//
// This tree is compiled once per instruction set, each time in a namespace of its own (SEGUE_VARIANT). Nothing from the C++
// standard library is used: an inline function of it, compiled for AVX-512, could be the copy that the linker keeps for every
// variant.
#pragma once
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "context.h"

#define SEGUE_JOIN2(a, b) a##_##b
#define SEGUE_JOIN(a, b) SEGUE_JOIN2(a, b)
// The C name of an operation of this variant, for example segue_matmul_avx2.
#define SEGUE_NAME(operation) SEGUE_JOIN(segue_##operation, SEGUE_VARIANT)

namespace SEGUE_VARIANT {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX2__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif

typedef float Vec __attribute__((vector_size(kWidth * 4)));
typedef int IntVec __attribute__((vector_size(kWidth * 4)));
typedef float UnalignedVec __attribute__((vector_size(kWidth * 4), aligned(4), may_alias));

static inline Vec load(const float* p) { return *(const UnalignedVec*)p; }
static inline void store(float* p, Vec v) { *(UnalignedVec*)p = v; }
static inline Vec splat(float x) { return x - Vec{}; }

// The first n floats at p, then zeros; n may be more than a vector holds.
static inline Vec load_part(const float* p, long n) {
  if (n >= kWidth) return load(p);
  Vec v = {};
  for (long i = 0; i < n; i++) v[i] = p[i];
  return v;
}

static inline void store_part(float* p, long n, Vec v) {
  if (n >= kWidth) return store(p, v);
  for (long i = 0; i < n; i++) p[i] = v[i];
}

// 0, 1, 2, ...
static inline IntVec lane_numbers() {
  IntVec v;
  for (int i = 0; i < kWidth; i++) v[i] = i;
  return v;
}

// Sum of the lanes, in an order of its own that never changes.
static inline float sum_lanes(Vec v) {
  for (int half = kWidth / 2; half > 0; half /= 2) v += __builtin_shuffle(v, lane_numbers() ^ half);
  return v[0];
}

// x in lanes [first, end), zero elsewhere.
static inline Vec keep_lanes(Vec x, int first, int end) {
  IntVec lane = lane_numbers();
  IntVec kept = (lane >= first) & (lane < end);
  return kept ? x : Vec{};
}

static inline Vec at_least(Vec x, float bound) { return x < splat(bound) ? splat(bound) : x; }
static inline Vec at_most(Vec x, float bound) { return x > splat(bound) ? splat(bound) : x; }

// e^x within 2 ulp; below -87.3 it stays at the smallest normal number. Cody-Waite reduction, Cephes polynomial.
static inline Vec exp_vec(Vec x) {
  x = at_most(at_least(x, -87.33f), 88.37f);
  const float to_integer = 12582912.f;  // 1.5 * 2^23: adding it leaves the rounded integer in the low bits
  Vec shifted = x * 1.44269504088896341f + to_integer;
  Vec n = shifted - to_integer;
  Vec r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  Vec p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  Vec y = (p * r) * r + r + 1.f;
  return (Vec)((IntVec)y + ((IntVec)shifted << 23));
}

// ln x for normal x > 0, within 2 ulp (Cephes).
static inline Vec log_vec(Vec x) {
  IntVec bits = (IntVec)x;
  IntVec exponent = ((bits >> 23) & 0xff) - 126;
  Vec m = (Vec)((bits & 0x007fffff) | 0x3f000000);  // [0.5, 1)
  IntVec small = m < splat(0.707106781186547524f);
  exponent = exponent + small;  // a true comparison is -1
  m = (small ? m + m : m) - 1.f;
  Vec e = __builtin_convertvector(exponent, Vec);
  Vec p = splat(7.0376836292e-2f);
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  Vec z = m * m;
  Vec y = p * m * z - e * 2.12194440e-4f - z * 0.5f;
  return m + y + e * 0.693359375f;
}

static inline Vec sigmoid(Vec x) { return 1.f / (1.f + exp_vec(-x)); }

// ln(1 + e^x), the identity above 20. The quotient restores what rounding 1 + u loses.
static inline Vec softplus(Vec x) {
  Vec u = exp_vec(x);
  Vec w = u + 1.f;
  Vec d = w - 1.f;
  Vec exact = d > splat(0.f) ? log_vec(w) * (u / d) : u;
  return x > splat(20.f) ? x : exact;
}

static inline long round_up(long n, long multiple) { return (n + multiple - 1) / multiple * multiple; }
static inline long min_long(long a, long b) { return a < b ? a : b; }
static inline long max_long(long a, long b) { return a > b ? a : b; }

static inline float* scratch(Context* ctx, int owner, int slot, long floats) { return segue_scratch(ctx, owner, slot, floats); }
// Scratch of the calling thread; inside a task, of the thread that runs it.
static inline float* my_scratch(Context* ctx, int slot, long floats) { return scratch(ctx, pool_thread(), slot, floats); }
// Scratch that all threads of an operation share; to be taken outside tasks.
static inline float* shared_scratch(Context* ctx, int slot, long floats) { return scratch(ctx, ctx->threads, slot, floats); }

// Whether an operation on so many floats is worth waking other threads for.
static inline bool worth_threads(Context* ctx, double floats) { return ctx->threads > 1 && floats > 16384; }

// f(0 .. count - 1), on all threads if an operation on `floats` floats is worth it. What f(i) computes must not depend on who runs
// it.
template <class F>
static inline void parallel_for(Context* ctx, double floats, long count, F f) {
  if (count < 2 || !worth_threads(ctx, floats)) {
    for (long i = 0; i < count; i++) f(i);
    return;
  }
  pool_run(ctx->pool, count, [](void* closure, long i) { (*(F*)closure)(i); }, &f);
}

// Sums over rows are taken in this many blocks of rows, whoever computes them: their order never depends on the threads.
constexpr int kBlocks = 32;

static inline void rows_of_block(long rows, int block, long* first, long* end) {
  long size = (rows + kBlocks - 1) / kBlocks;
  *first = min_long(block * size, rows);
  *end = min_long(*first + size, rows);
}

// f(first, end) for every block of rows of `width` floats each.
template <class F>
static inline void parallel_rows(Context* ctx, long rows, double width, F f) {
  parallel_for(ctx, rows * width, kBlocks, [&](long block) {
    long first, end;
    rows_of_block(rows, (int)block, &first, &end);
    f(first, end);
  });
}

// out[i] = sum over blocks of partial[block][i], in the order of the blocks.
static inline void sum_blocks(const float* partial, long blocks, long width, float* out) {
  for (long i = 0; i < width; i += kWidth) {
    Vec sum = {};
    for (long block = 0; block < blocks; block++) sum += load_part(partial + block * width + i, width - i);
    store_part(out + i, width - i, sum);
  }
}

}  // namespace SEGUE_VARIANT
