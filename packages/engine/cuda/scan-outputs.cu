// Outputs of the chunk scan (chunks.cuh), from the states before every chunk.
#include "chunks.cuh"

struct OutputsShared {
  union {
    struct {
      bf16 b[kChunk * kStrideN], c[kChunk * kStrideN];
    } first;
    struct {
      bf16 x[2][kChunk * kStrideP], states[2][P * kStrideN];
    } then;
  };
  float decays[2][2 * kChunk];
  int starts[kChunk];
};

// Grid [chunks, lanes, groups], 128 threads: a warp for each 16 tokens.
extern "C" __global__ void __launch_bounds__(128)
    scan_outputs(int tokens, int heads, int groups, int chunks, const float* decays, const int* starts, const bf16* xbc,
                 const float* skip, const bf16* states, bf16* y) {
  OutputsShared& shared = *reinterpret_cast<OutputsShared*>(shared_memory);
  const Scan s = {tokens, heads, groups, chunks, decays, starts, xbc};
  const int chunk = blockIdx.x, lane = blockIdx.y, group = blockIdx.z, per_group = heads / groups;
  const int thread = threadIdx.x & 31, warp = threadIdx.x >> 5, upper = thread >> 2, pair = (thread & 3) * 2;
  const int t0 = warp * 16 + upper, t1 = t0 + 8, live = s.live(chunk);
  const i64 row = s.row(lane, chunk);

  ask_rows<kChunk, N, kStrideN>(shared.first.b, s.b(row, group), s.channels(), live);
  ask_rows<kChunk, N, kStrideN>(shared.first.c, s.c(row, group), s.channels(), live);
  ask_floats<kChunk>(reinterpret_cast<float*>(shared.starts),
                     reinterpret_cast<const float*>(starts + ((i64)lane * chunks + chunk) * kChunk));
  copy_async_commit();
  copy_async_wait<0>();
  __syncthreads();
  // C, and C B^T for the tokens before each token.
  u32 c[kStates16][4];
  float g[2 * kTimes][4];
#pragma unroll
  for (int k = 0; k < kStates16; k++) first_factor<kStrideN>(c[k], shared.first.c + warp * 16 * kStrideN + k * 16);
#pragma unroll
  for (int n = 0; n < kTimes; n++) {
    for (int j = 0; j < 4; j++) g[2 * n][j] = g[2 * n + 1][j] = 0.f;
    if (n > warp) continue;
#pragma unroll
    for (int k = 0; k < kStates16; k++) {
      u32 b[4];
      second_factor_by_columns<kStrideN>(b, shared.first.b + n * 16 * kStrideN + k * 16);
      multiply(g[2 * n], g[2 * n + 1], c[k], b);
    }
  }
  __syncthreads();

  auto ask = [&](int i, int slot) {
    const int head = group * per_group + i;
    ask_rows<kChunk, P, kStrideP>(shared.then.x[slot], s.x(row, head), s.channels(), live);
    ask_rows<P, N, kStrideN>(shared.then.states[slot], states + s.unit(lane, chunk, head) * P * N, N, P);
    ask_floats<2 * kChunk>(shared.decays[slot], decays + s.unit(lane, chunk, head) * 2 * kChunk);
    copy_async_commit();
  };
  ask(0, 0);
  for (int i = 0; i < per_group; i++) {
    const int slot = i & 1, head = group * per_group + i;
    copy_async_wait<0>();
    __syncthreads();
    if (i + 1 < per_group) ask(i + 1, slot ^ 1);
    const Decay d = {shared.decays[slot], shared.decays[slot] + kChunk, shared.starts};
    const bf16* x = shared.then.x[slot];
    float acc[2 * kHeads16][4];
#pragma unroll
    for (int n = 0; n < kHeads16; n++) {
      for (int j = 0; j < 4; j++) acc[2 * n][j] = acc[2 * n + 1][j] = 0.f;
#pragma unroll
      for (int k = 0; k < kStates16; k++) {
        u32 b[4];
        second_factor_by_columns<kStrideN>(b, shared.then.states[slot] + n * 16 * kStrideN + k * 16);
        multiply(acc[2 * n], acc[2 * n + 1], c[k], b);
      }
    }
    const float from0 = d.from_start(t0), from1 = d.from_start(t1), cs0 = d.cs[t0], cs1 = d.cs[t1];
    const int start0 = d.start[t0], start1 = d.start[t1];
#pragma unroll
    for (int n = 0; n < 2 * kHeads16; n++) acc[n][0] *= from0, acc[n][1] *= from0, acc[n][2] *= from1, acc[n][3] *= from1;
#pragma unroll
    for (int k = 0; k < kTimes; k++) {
      if (k > warp) continue;
      float m[2][4];
#pragma unroll
      for (int half = 0; half < 2; half++) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const int at = k * 16 + half * 8 + pair + (j & 1), t = j < 2 ? t0 : t1;
          const bool seen = at <= t && at >= (j < 2 ? start0 : start1);
          m[half][j] = seen ? g[2 * k + half][j] * fast_exp2((j < 2 ? cs0 : cs1) - d.cs[at]) * d.dt[at] : 0.f;
        }
      }
      u32 a[4];
      rounded(a, m[0], m[1]);
#pragma unroll
      for (int n = 0; n < kHeads16; n++) {
        u32 b[4];
        second_factor<kStrideP>(b, x + k * 16 * kStrideP + n * 16);
        multiply(acc[2 * n], acc[2 * n + 1], a, b);
      }
    }
    const float direct = skip[head];
#pragma unroll
    for (int n = 0; n < 2 * kHeads16; n++) {
      const int p = n * 8 + pair;
      const u32 x0 = pair_at(x + t0 * kStrideP + p), x1 = pair_at(x + t1 * kStrideP + p);
      acc[n][0] += direct * low_half(x0), acc[n][1] += direct * high_half(x0);
      acc[n][2] += direct * low_half(x1), acc[n][3] += direct * high_half(x1);
    }
    put_rows(y + (row + t0) * heads * P + head * P, (i64)8 * heads * P, acc, t0 < live, t1 < live);
  }
}
