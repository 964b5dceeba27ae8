// Contexts, and which variants this processor can run. Compiled for the plain instruction set.
#include <stdlib.h>
#include <string.h>

#include "context.h"

SEGUE_API Context* segue_open(int threads) {
  Context* ctx = (Context*)calloc(1, sizeof(Context));
  ctx->threads = threads < 1 ? 1 : threads;
  ctx->pool = pool_open(ctx->threads);
  ctx->scratch = (Scratch*)calloc((size_t)ctx->threads + 1, sizeof(Scratch));
  return ctx;
}

SEGUE_API void segue_close(Context* ctx) {
  pool_close(ctx->pool);
  for (int owner = 0; owner <= ctx->threads; owner++) {
    for (int slot = 0; slot < kScratchSlots; slot++) free(ctx->scratch[owner].data[slot]);
  }
  free(ctx->scratch);
  free(ctx);
}

// Bytes of scratch held by a context.
SEGUE_API double segue_scratch_bytes(Context* ctx) {
  double bytes = 0;
  for (int owner = 0; owner <= ctx->threads; owner++) {
    for (int slot = 0; slot < kScratchSlots; slot++) bytes += 4.0 * (double)ctx->scratch[owner].floats[slot];
  }
  return bytes;
}

extern "C" float* segue_scratch(Context* ctx, int owner, int slot, long floats) {
  Scratch* s = &ctx->scratch[owner];
  if (s->floats[slot] >= floats) return s->data[slot];
  free(s->data[slot]);
  size_t bytes = ((size_t)floats * 4 + 63) / 64 * 64;
  s->data[slot] = (float*)aligned_alloc(64, bytes);
  if (!s->data[slot]) abort();
  s->floats[slot] = floats;
  return s->data[slot];
}

// Names of the variants that this library has and this processor runs, the fastest first.
SEGUE_API const char* segue_variants() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx512) return "avx512 avx2 baseline";
  if (avx2) return "avx2 baseline";
#endif
  return "baseline";
}
