// States from chunk to chunk, forward in time, and their gradients, backward. The chunk scan: chunks.cuh.
#include "chunks.cuh"

// Defined when compiled: ROWS, the rows of the state of one block, a multiple of 16.
constexpr int kRows = ROWS, kStrideRows = kRows + 8;

struct StatesShared {
  bf16 u[2][kChunk * kStrideRows];
  bf16 v[2][kChunk * kStrideN];
  float decays[2][2 * kChunk];
  int starts[2][kChunk];
  float weight[kChunk];
};

// Grid [heads, lanes, P / kRows], kRows * 2 threads: a warp for each 16 rows. Forward in time the state before every chunk,
//   u = x, v = B, weight = dt times decay to the end; backward the gradient of the state after every chunk,
//   u = dy, v = C, weight = decay from the start. `begin` holds the first value (null: zeros), `end` receives the last (null: unwanted).
extern "C" __global__ void __launch_bounds__(kRows * 2)
    scan_states(int tokens, int heads, int groups, int chunks, const float* decays, const int* starts, const bf16* xbc, const bf16* dy,
                const float* begin, i64 begin_stride, float* end, i64 end_stride, float* saved, i64 saved_stride, bf16* states) {
  StatesShared& shared = *reinterpret_cast<StatesShared*>(shared_memory);
  const Scan s = {tokens, heads, groups, chunks, decays, starts, xbc};
  const int head = blockIdx.x, lane = blockIdx.y, first_row = blockIdx.z * kRows, group = head / (heads / groups);
  const int thread = threadIdx.x & 31, warp_row = (threadIdx.x >> 5) * 16, upper = thread >> 2, pair = (thread & 3) * 2;
  const bool backward = dy != nullptr;
  const i64 part = (i64)head * P * N + (i64)(first_row + warp_row + upper) * N + pair;

  float acc[2 * kStates16][4];
#pragma unroll
  for (int n = 0; n < 2 * kStates16; n++) {
    for (int j = 0; j < 4; j++) acc[n][j] = 0.f;
    if (!begin) continue;
    const float* from = begin + lane * begin_stride + part + n * 8;
    acc[n][0] = from[0], acc[n][1] = from[1], acc[n][2] = from[8 * N], acc[n][3] = from[8 * N + 1];
    if (!saved) continue;
    float* to = saved + lane * saved_stride + part + n * 8;
    to[0] = acc[n][0], to[1] = acc[n][1], to[8 * N] = acc[n][2], to[8 * N + 1] = acc[n][3];
  }

  auto ask = [&](int chunk, int slot) {
    const i64 row = s.row(lane, chunk);
    const int live = s.live(chunk);
    if (backward)
      ask_rows<kChunk, kRows, kStrideRows>(shared.u[slot], dy + row * heads * P + head * P + first_row, (i64)heads * P, live);
    else
      ask_rows<kChunk, kRows, kStrideRows>(shared.u[slot], s.x(row, head) + first_row, s.channels(), live);
    ask_rows<kChunk, N, kStrideN>(shared.v[slot], backward ? s.c(row, group) : s.b(row, group), s.channels(), live);
    ask_floats<2 * kChunk>(shared.decays[slot], decays + s.unit(lane, chunk, head) * 2 * kChunk);
    ask_floats<kChunk>(reinterpret_cast<float*>(shared.starts[slot]),
                       reinterpret_cast<const float*>(starts + ((i64)lane * chunks + chunk) * kChunk));
    copy_async_commit();
  };

  ask(backward ? chunks - 1 : 0, 0);
  for (int i = 0; i < chunks; i++) {
    const int chunk = backward ? chunks - 1 - i : i, slot = i & 1;
    copy_async_wait<0>();
    __syncthreads();
    if (i + 1 < chunks) ask(backward ? chunk - 1 : chunk + 1, slot ^ 1);
    const Decay d = {shared.decays[slot], shared.decays[slot] + kChunk, shared.starts[slot]};
    for (int t = threadIdx.x; t < kChunk; t += blockDim.x) shared.weight[t] = backward ? d.from_start(t) : d.to_end(t) * d.dt[t];
    const float whole = d.whole();
    if (states) {
      put_rows(states + s.unit(lane, chunk, 0) * P * N + part - pair, 8 * N, acc, true, true);
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < 2 * kStates16; n++) {
      for (int j = 0; j < 4; j++) acc[n][j] *= whole;
    }
#pragma unroll
    for (int k = 0; k < kTimes; k++) {
      u32 a[4];
      first_factor_transposed<kStrideRows>(a, shared.u[slot] + k * 16 * kStrideRows + warp_row);
      const float2 w0 = *reinterpret_cast<const float2*>(shared.weight + k * 16 + pair);
      const float2 w1 = *reinterpret_cast<const float2*>(shared.weight + k * 16 + 8 + pair);
      a[0] = pack_bf16(low_half(a[0]) * w0.x, high_half(a[0]) * w0.y), a[1] = pack_bf16(low_half(a[1]) * w0.x, high_half(a[1]) * w0.y);
      a[2] = pack_bf16(low_half(a[2]) * w1.x, high_half(a[2]) * w1.y), a[3] = pack_bf16(low_half(a[3]) * w1.x, high_half(a[3]) * w1.y);
#pragma unroll
      for (int n = 0; n < kStates16; n++) {
        u32 b[4];
        second_factor<kStrideN>(b, shared.v[slot] + k * 16 * kStrideN + n * 16);
        multiply(acc[2 * n], acc[2 * n + 1], a, b);
      }
    }
  }
  if (!end) return;
#pragma unroll
  for (int n = 0; n < 2 * kStates16; n++) {
    float* to = end + lane * end_stride + part + n * 8;
    to[0] = acc[n][0], to[1] = acc[n][1], to[8 * N] = acc[n][2], to[8 * N + 1] = acc[n][3];
  }
}
