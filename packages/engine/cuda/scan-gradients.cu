// Gradients of the chunk scan (chunks.cuh), from the states before and their gradients after every chunk.
#include "chunks.cuh"

constexpr int kStrideT = kChunk + 8, kStrideF = P + 4;

// Of one head in one chunk, by token: what leads to cs_t; x_t . (what reaches dt_t x_t), within the chunk and by the state after it.
struct Sums {
  float columns[4][kChunk], rows[kChunk], inserted[kChunk], within[kChunk], direct[kChunk], through_start[kChunk];
  float products[4], diagonals[4];
};

struct GradientsShared {
  bf16 b[kChunk * kStrideN], c[kChunk * kStrideN];
  bf16 x[2][kChunk * kStrideP], dy[2][kChunk * kStrideP];
  bf16 states[2][P * kStrideN], d_states[2][P * kStrideN];
  float decays[2][2 * kChunk];
  int starts[kChunk];
  Sums sums[2];
  // What reaches x_s by the state after the chunk.
  float by_state[kChunk * kStrideF];
  bf16 d_g[kChunk * kStrideT];
};

constexpr int kByStateBarrier = 1;

// Grid [chunks, lanes, groups], 384 threads. Three teams of four warps, each warp with 16 tokens as rows: what happens within the chunk,
// (C B^T)^T, its gradient, and the gradient of x; the gradient of B and what reaches x by the state after the chunk; the gradient of C.
// With d_cs_t the gradient of cs_t, that of dt_t A is the sum of d_cs over the tokens from t on.
extern "C" __global__ void __launch_bounds__(384)
    scan_gradients(int tokens, int heads, int groups, int chunks, const float* decays, const int* starts, const bf16* xbc,
                   const float* a_log, const float* skip, const bf16* states, const bf16* d_states, const bf16* dy, bf16* d_xbc,
                   float* d_dt, float* d_a_parts, float* d_skip_parts) {
  GradientsShared& shared = *reinterpret_cast<GradientsShared*>(shared_memory);
  const Scan s = {tokens, heads, groups, chunks, decays, starts, xbc};
  const int chunk = blockIdx.x, lane = blockIdx.y, group = blockIdx.z, per_group = heads / groups;
  const int thread = threadIdx.x & 31, upper = thread >> 2, pair = (thread & 3) * 2;
  const int team = threadIdx.x >> 7;
  const int warp = (threadIdx.x >> 5) & 3, live = s.live(chunk);
  const int s0 = warp * 16 + upper, s1 = s0 + 8;
  const i64 row = s.row(lane, chunk);

  // The first team has the most to do without.
  const Crew crew = {(int)threadIdx.x - 128, 256};
  auto ask = [&](int i, int slot) {
    if (team == 0) return;
    const int head = group * per_group + i;
    ask_rows<kChunk, P, kStrideP>(shared.x[slot], s.x(row, head), s.channels(), live, crew);
    ask_rows<kChunk, P, kStrideP>(shared.dy[slot], dy + row * heads * P + head * P, (i64)heads * P, live, crew);
    ask_rows<P, N, kStrideN>(shared.states[slot], states + s.unit(lane, chunk, head) * P * N, N, P, crew);
    ask_rows<P, N, kStrideN>(shared.d_states[slot], d_states + s.unit(lane, chunk, head) * P * N, N, P, crew);
    ask_floats<2 * kChunk>(shared.decays[slot], decays + s.unit(lane, chunk, head) * 2 * kChunk, crew);
    copy_async_commit();
  };
  ask_rows<kChunk, N, kStrideN>(shared.b, s.b(row, group), s.channels(), live);
  ask_rows<kChunk, N, kStrideN>(shared.c, s.c(row, group), s.channels(), live);
  ask_floats<kChunk>(reinterpret_cast<float*>(shared.starts),
                     reinterpret_cast<const float*>(starts + ((i64)lane * chunks + chunk) * kChunk));
  copy_async_commit();
  ask(0, 0);
  copy_async_wait<0>();
  __syncthreads();
  // Head i is there; asks for the next.
  auto arrive = [&](int i, int slot) {
    if (i > 0) {
      copy_async_wait<0>();
      __syncthreads();
    }
    if (i + 1 < per_group) ask(i + 1, slot ^ 1);
  };

  // The branches meet at the same barriers; apart, each has the registers to itself. Loops that need not be unrolled are not: all
  // teams' code together has to fit the instruction cache.
  if (team == 0) {
    // (C B^T)^T of the tokens from s on, and its gradient.
    float g[2 * kTimes][4], d_g[2 * kTimes][4];
#pragma unroll
    for (int n = 0; n < 2 * kTimes; n++) {
      for (int j = 0; j < 4; j++) g[n][j] = d_g[n][j] = 0.f;
    }
#pragma unroll
    for (int k = 0; k < kStates16; k++) {
      u32 a[4];
      first_factor<kStrideN>(a, shared.b + warp * 16 * kStrideN + k * 16);
#pragma unroll
      for (int n = 0; n < kTimes; n++) {
        if (n < warp) continue;
        u32 b[4];
        second_factor_by_columns<kStrideN>(b, shared.c + n * 16 * kStrideN + k * 16);
        multiply(g[2 * n], g[2 * n + 1], a, b);
      }
    }
    // What is left to do for a head once all teams are through with it, by the warp with the fewest tokens after its own; two tokens a
    // lane, t = 2 * thread and + 1. It happens beside the next head's work.
    float step0 = 0.f, step1 = 0.f, whole = 0.f;
    auto finish = [&](int i) {
      if (warp != 3) return;
      const Sums& sums = shared.sums[i & 1];
      const int head = group * per_group + i;
      float d_cs[2], ends = 0.f;
      for (int j = 0; j < 2; j++) {
        const int t = 2 * thread + j;
        float columns = 0.f;
        for (int w = 0; w < 4; w++) columns += sums.columns[w][t];
        d_cs[j] = columns - sums.rows[t] - sums.inserted[t] + sums.through_start[t];
        ends += sums.inserted[t];
      }
      ends = warp_sum(ends);
      float product = 0.f, diagonal = 0.f;
      for (int w = 0; w < 4; w++) product += sums.products[w], diagonal += sums.diagonals[w];
      if (thread == 31) d_cs[1] += ends + whole * product;
      // Sums from t on; nothing passes a document's start, where the sum is zero but for rounding.
      float later = d_cs[0] + d_cs[1];
      for (int step = 1; step < 32; step <<= 1) {
        const float other = __shfl_down_sync(kAllLanes, later, step);
        if (thread + step < 32) later += other;
      }
      const float a = -expf(a_log[head]);
      const float from[2] = {later, later - d_cs[0]};
      float d_a = 0.f;
      for (int j = 0; j < 2; j++) {
        const int t = 2 * thread + j;
        const float sum = shared.starts[t] == t ? 0.f : from[j];
        if (t < live) d_dt[(row + t) * heads + head] = sums.within[t] + sums.direct[t] + sum * a;
        d_a += sum * (j == 0 ? step0 : step1);
      }
      d_a = warp_sum(d_a);
      if (thread == 0) {
        const i64 unit = s.unit(lane, chunk, head);
        d_a_parts[unit] = d_a * a, d_skip_parts[unit] = diagonal;
      }
    };
    for (int i = 0; i < per_group; i++) {
      const int slot = i & 1, head = group * per_group + i;
      arrive(i, slot);
      if (i > 0) finish(i - 1);
      const Decay d = {shared.decays[slot], shared.decays[slot] + kChunk, shared.starts};
      const bf16 *x = shared.x[slot], *dys = shared.dy[slot];
      const float dt0 = d.dt[s0], dt1 = d.dt[s1];
      float acc[2 * kHeads16][4];
#pragma unroll
      for (int n = 0; n < 2 * kHeads16; n++) {
        for (int j = 0; j < 4; j++) acc[n][j] = 0.f;
      }
      u32 x_rows[kHeads16][4];
#pragma unroll
      for (int k = 0; k < kHeads16; k++) first_factor<kStrideP>(x_rows[k], x + warp * 16 * kStrideP + k * 16);
      float row0 = 0.f, row1 = 0.f, diagonal = 0.f;
      const float cs0 = d.cs[s0], cs1 = d.cs[s1], through = skip[head];
#pragma unroll
      for (int n = 0; n < kTimes; n++) {
        if (n < warp) {
          if (upper == 0) {
            for (int half = 0; half < 2; half++) {
              for (int j = 0; j < 2; j++) shared.sums[slot].columns[warp][n * 16 + half * 8 + pair + j] = 0.f;
            }
          }
          continue;
        }
        float d_m[2][4], m[2][4], sums[4];
#pragma unroll
        for (int j = 0; j < 4; j++) d_m[0][j] = d_m[1][j] = 0.f;
#pragma unroll
        for (int k = 0; k < kHeads16; k++) {
          u32 b[4];
          second_factor_by_columns<kStrideP>(b, dys + n * 16 * kStrideP + k * 16);
          multiply(d_m[0], d_m[1], x_rows[k], b);
        }
        const bool is_diagonal = n == warp;
#pragma unroll
        for (int half = 0; half < 2; half++) {
#pragma unroll
          for (int j = 0; j < 2; j++) {
            const int t = n * 16 + half * 8 + pair + j, start = d.start[t];
            const float cs = d.cs[t];
            // In powers of two; nothing reaches a token from after it or from before its document.
            float e0 = fast_exp2(cs - cs0), e1 = fast_exp2(cs - cs1);
            if (s0 < start || (is_diagonal && s0 > t)) e0 = 0.f;
            if (s1 < start || (is_diagonal && s1 > t)) e1 = 0.f;
            const float d_m0 = d_m[half][j], d_m1 = d_m[half][j + 2], g0 = g[2 * n + half][j], g1 = g[2 * n + half][j + 2];
            const float both0 = d_m0 * g0 * e0, both1 = d_m1 * g1 * e1;
            e0 *= dt0, e1 *= dt1;
            d_g[2 * n + half][j] += d_m0 * e0, d_g[2 * n + half][j + 2] += d_m1 * e1;
            row0 += both0, row1 += both1, sums[half * 2 + j] = both0 * dt0 + both1 * dt1;
            m[half][j] = g0 * e0, m[half][j + 2] = g1 * e1;
            if (is_diagonal && t == s0) diagonal += d_m[half][j], m[half][j] += through;
            if (is_diagonal && t == s1) diagonal += d_m[half][j + 2], m[half][j + 2] += through;
          }
        }
        u32 a[4];
        rounded(a, m[0], m[1]);
#pragma unroll
        for (int k = 0; k < kHeads16; k++) {
          u32 b[4];
          second_factor<kStrideP>(b, dys + n * 16 * kStrideP + k * 16);
          multiply(acc[2 * k], acc[2 * k + 1], a, b);
        }
        // Over the rows of the warp; each step leaves a lane with half as many columns.
        const bool is_odd = upper & 1, is_second = upper & 2;
        float keep0 = is_odd ? sums[2] : sums[0], keep1 = is_odd ? sums[3] : sums[1];
        keep0 += __shfl_xor_sync(kAllLanes, is_odd ? sums[0] : sums[2], 4);
        keep1 += __shfl_xor_sync(kAllLanes, is_odd ? sums[1] : sums[3], 4);
        float column = is_second ? keep1 : keep0;
        column += __shfl_xor_sync(kAllLanes, is_second ? keep0 : keep1, 8);
        column += __shfl_xor_sync(kAllLanes, column, 16);
        if (upper < 4) shared.sums[slot].columns[warp][n * 16 + is_odd * 8 + pair + is_second] = column;
      }
      row0 = row_sum(row0), row1 = row_sum(row1);
      diagonal = warp_sum(diagonal);
      if (pair == 0) {
        shared.sums[slot].within[s0] = row0, shared.sums[slot].within[s1] = row1;
        shared.sums[slot].rows[s0] = row0 * dt0, shared.sums[slot].rows[s1] = row1 * dt1;
      }
      if (thread == 0) shared.sums[slot].diagonals[warp] = diagonal;

      barrier(kByStateBarrier, 256);
#pragma unroll
      for (int n = 0; n < 2 * kHeads16; n++) {
        const float2 w0 = *reinterpret_cast<const float2*>(shared.by_state + s0 * kStrideF + n * 8 + pair);
        const float2 w1 = *reinterpret_cast<const float2*>(shared.by_state + s1 * kStrideF + n * 8 + pair);
        acc[n][0] += w0.x, acc[n][1] += w0.y, acc[n][2] += w1.x, acc[n][3] += w1.y;
      }
      put_rows(d_xbc + (row + s0) * s.channels() + head * P, (i64)8 * s.channels(), acc, s0 < live, s1 < live);
      step0 = d.dt[2 * thread], step1 = d.dt[2 * thread + 1], whole = d.whole();
    }
#pragma unroll
    for (int n = 0; n < 2 * kTimes; n++) {
      put_pair(shared.d_g + s0 * kStrideT + n * 8 + pair, d_g[n][0], d_g[n][1]);
      put_pair(shared.d_g + s1 * kStrideT + n * 8 + pair, d_g[n][2], d_g[n][3]);
    }
    __syncthreads();
    finish(per_group - 1);
  } else if (team == 1) {
    // The gradient of B (rows s).
    float d_b[2 * kStates16][4];
#pragma unroll
    for (int n = 0; n < 2 * kStates16; n++) {
      for (int j = 0; j < 4; j++) d_b[n][j] = 0.f;
    }
    for (int i = 0; i < per_group; i++) {
      const int slot = i & 1;
      arrive(i, slot);
      const Decay d = {shared.decays[slot], shared.decays[slot] + kChunk, shared.starts};
      const bf16* x = shared.x[slot];
      const float end0 = d.to_end(s0), end1 = d.to_end(s1), dt0 = d.dt[s0], dt1 = d.dt[s1];

      // What reaches x_s through the end of the chunk: (B dS^T)_s times the decay to the end.
      float acc[2 * kHeads16][4];
#pragma unroll
      for (int n = 0; n < 2 * kHeads16; n++) {
        for (int j = 0; j < 4; j++) acc[n][j] = 0.f;
      }
#pragma unroll 2
      for (int k = 0; k < kStates16; k++) {
        u32 a[4];
        first_factor<kStrideN>(a, shared.b + warp * 16 * kStrideN + k * 16);
#pragma unroll
        for (int n = 0; n < kHeads16; n++) {
          u32 b[4];
          second_factor_by_columns<kStrideN>(b, shared.d_states[slot] + n * 16 * kStrideN + k * 16);
          multiply(acc[2 * n], acc[2 * n + 1], a, b);
        }
      }
      float inserted0 = 0.f, inserted1 = 0.f;
#pragma unroll
      for (int n = 0; n < 2 * kHeads16; n++) {
        acc[n][0] *= end0, acc[n][1] *= end0, acc[n][2] *= end1, acc[n][3] *= end1;
        *reinterpret_cast<float2*>(shared.by_state + s0 * kStrideF + n * 8 + pair) = make_float2(dt0 * acc[n][0], dt0 * acc[n][1]);
        *reinterpret_cast<float2*>(shared.by_state + s1 * kStrideF + n * 8 + pair) = make_float2(dt1 * acc[n][2], dt1 * acc[n][3]);
        const u32 x0 = pair_at(x + s0 * kStrideP + n * 8 + pair), x1 = pair_at(x + s1 * kStrideP + n * 8 + pair);
        inserted0 += acc[n][0] * low_half(x0) + acc[n][1] * high_half(x0);
        inserted1 += acc[n][2] * low_half(x1) + acc[n][3] * high_half(x1);
      }
      inserted0 = row_sum(inserted0), inserted1 = row_sum(inserted1);
      if (pair == 0) {
        shared.sums[slot].direct[s0] = inserted0, shared.sums[slot].direct[s1] = inserted1;
        shared.sums[slot].inserted[s0] = inserted0 * dt0, shared.sums[slot].inserted[s1] = inserted1 * dt1;
      }
      barrier_arrive(kByStateBarrier, 256);
      // B_s meets the gradient of the state after the chunk.
#pragma unroll 2
      for (int k = 0; k < kHeads16; k++) {
        u32 a[4];
        first_factor<kStrideP>(a, x + warp * 16 * kStrideP + k * 16);
        scale_rows(a, end0 * dt0, end1 * dt1);
#pragma unroll
        for (int n = 0; n < kStates16; n++) {
          u32 b[4];
          second_factor<kStrideN>(b, shared.d_states[slot] + k * 16 * kStrideN + n * 16);
          multiply(d_b[2 * n], d_b[2 * n + 1], a, b);
        }
      }
    }
    // Through C B^T, all heads at once.
    __syncthreads();
#pragma unroll 1
    for (int k = 0; k < kTimes; k++) {
      u32 a[4];
      first_factor<kStrideT>(a, shared.d_g + warp * 16 * kStrideT + k * 16);
#pragma unroll
      for (int n = 0; n < kStates16; n++) {
        u32 b[4];
        second_factor<kStrideN>(b, shared.c + k * 16 * kStrideN + n * 16);
        multiply(d_b[2 * n], d_b[2 * n + 1], a, b);
      }
    }
    put_rows(d_xbc + (row + s0) * s.channels() + heads * P + group * N, (i64)8 * s.channels(), d_b, s0 < live, s1 < live);
  } else {
    // The gradient of C (rows t).
    float d_c[2 * kStates16][4];
    float through0 = 0.f, through1 = 0.f;
#pragma unroll
    for (int n = 0; n < 2 * kStates16; n++) {
      for (int j = 0; j < 4; j++) d_c[n][j] = 0.f;
    }
    for (int i = 0; i < per_group; i++) {
      const int slot = i & 1;
      arrive(i, slot);
      const Decay d = {shared.decays[slot], shared.decays[slot] + kChunk, shared.starts};
      // C_t meets the state before the chunk.
      const float from0 = d.from_start(s0), from1 = d.from_start(s1);
#pragma unroll 2
      for (int k = 0; k < kHeads16; k++) {
        u32 a[4];
        first_factor<kStrideP>(a, shared.dy[slot] + warp * 16 * kStrideP + k * 16);
        scale_rows(a, from0, from1);
#pragma unroll
        for (int n = 0; n < kStates16; n++) {
          u32 b[4];
          second_factor<kStrideN>(b, shared.states[slot] + k * 16 * kStrideN + n * 16);
          multiply(d_c[2 * n], d_c[2 * n + 1], a, b);
        }
      }
      // dy_t . (what the state before gives y_t) is C_t . (what this head added to the gradient of C_t).
      float sum0 = 0.f, sum1 = 0.f;
#pragma unroll
      for (int n = 0; n < 2 * kStates16; n++) {
        const u32 c0 = pair_at(shared.c + s0 * kStrideN + n * 8 + pair), c1 = pair_at(shared.c + s1 * kStrideN + n * 8 + pair);
        sum0 += d_c[n][0] * low_half(c0) + d_c[n][1] * high_half(c0);
        sum1 += d_c[n][2] * low_half(c1) + d_c[n][3] * high_half(c1);
      }
      sum0 = row_sum(sum0), sum1 = row_sum(sum1);
      if (pair == 0) shared.sums[slot].through_start[s0] = sum0 - through0, shared.sums[slot].through_start[s1] = sum1 - through1;
      through0 = sum0, through1 = sum1;
      // The state before and the gradient of the state after.
      float product = 0.f;
      for (int at = (threadIdx.x - 256) * 8; at < P * N; at += 128 * 8) {
        const int offset = at / N * kStrideN + at % N;
        const uint4 a = *reinterpret_cast<const uint4*>(shared.states[slot] + offset);
        const uint4 b = *reinterpret_cast<const uint4*>(shared.d_states[slot] + offset);
        product += low_half(a.x) * low_half(b.x) + high_half(a.x) * high_half(b.x) + low_half(a.y) * low_half(b.y) +
                   high_half(a.y) * high_half(b.y) + low_half(a.z) * low_half(b.z) + high_half(a.z) * high_half(b.z) +
                   low_half(a.w) * low_half(b.w) + high_half(a.w) * high_half(b.w);
      }
      product = warp_sum(product);
      if (thread == 0) shared.sums[slot].products[warp] = product;
    }
    // Through C B^T, all heads at once.
    __syncthreads();
#pragma unroll 1
    for (int k = 0; k < kTimes; k++) {
      u32 a[4];
      first_factor_transposed<kStrideT>(a, shared.d_g + k * 16 * kStrideT + warp * 16);
#pragma unroll
      for (int n = 0; n < kStates16; n++) {
        u32 b[4];
        second_factor<kStrideN>(b, shared.b + k * 16 * kStrideN + n * 16);
        multiply(d_c[2 * n], d_c[2 * n + 1], a, b);
      }
    }
    put_rows(d_xbc + (row + s0) * s.channels() + heads * P + (groups + group) * N, (i64)8 * s.channels(), d_c, s0 < live, s1 < live);
  }
}
