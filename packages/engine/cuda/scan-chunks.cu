// The SSD chunk scan on tensor cores (paper.md 7.5, 7.6): bf16 factors, float32 sums, states and decays. Each lane is cut into chunks
// of kChunk tokens. With cs_t the running sum of dt A in a chunk and everything zero across a document's start,
//   y_t = sum_{s <= t} e(t, s) dt_s (C_t . B_s) x_s + exp(cs_t) S C_t + D x_t,   e(t, s) = exp(cs_t - cs_s), S the state before,
//   S'  = exp(cs_end) S + sum_s exp(cs_end - cs_s) dt_s x_s (outer) B_s.
// States go from chunk to chunk in one kernel (scan_states); what happens within chunks is done for all of them at once. C B^T is
// shared by the heads of a group, so that a block takes one chunk and all heads of a group.
#include "common.cuh"

// Defined when compiled: HEAD_DIM, STATE, and ROWS, the rows of the state of one block of scan_states. Multiples of 16.
constexpr int P = HEAD_DIM, N = STATE, kRows = ROWS;
constexpr int kChunk = 64;
// Tiles of 16 x 16 along the chunk, P and N.
constexpr int kTimes = kChunk / 16, kHeads16 = P / 16, kStates16 = N / 16;
// Rows in shared memory are 16 bytes longer than their contents: eight of them begin in different banks.
constexpr int kStrideP = P + 8, kStrideN = N + 8, kStrideT = kChunk + 8, kStrideRows = kRows + 8;
constexpr int kStrideF = P + 4;
constexpr float kLog2E = 1.44269504088896341f;

extern __shared__ __align__(128) unsigned char shared_memory[];

struct Scan {
  int tokens, heads, groups, chunks;
  // [lanes, chunks, heads, 2, kChunk]: cs_t in units of log2, and dt_t, 0 beyond the end.
  const float* decays;
  // [lanes, chunks, kChunk]: the last token of the chunk up to t at which a document starts, or -1.
  const int* starts;
  const bf16* xbc;

  __device__ __forceinline__ int channels() const { return heads * P + 2 * groups * N; }
  __device__ __forceinline__ i64 row(int lane, int chunk) const { return (i64)lane * tokens + chunk * kChunk; }
  __device__ __forceinline__ int live(int chunk) const { return min(kChunk, tokens - chunk * kChunk); }
  __device__ __forceinline__ i64 unit(int lane, int chunk, int head) const { return ((i64)lane * chunks + chunk) * heads + head; }
  __device__ __forceinline__ const bf16* x(i64 row, int head) const { return xbc + row * channels() + head * P; }
  __device__ __forceinline__ const bf16* b(i64 row, int group) const { return xbc + row * channels() + heads * P + group * N; }
  __device__ __forceinline__ const bf16* c(i64 row, int group) const { return b(row, group) + groups * N; }
};

// ---- Pieces that the kernels are made of ----

// Threads that fetch together: `rank` of `count`.
struct Crew {
  int rank, count;
};
__device__ __forceinline__ Crew everyone() { return {(int)threadIdx.x, (int)blockDim.x}; }

// Asks for rows [kRowCount, kColumns] of bf16; rows from `live` on become zeros.
template <int kRowCount, int kColumns, int kStride>
__device__ __forceinline__ void ask_rows(bf16* to, const bf16* from, i64 stride, int live, Crew crew = everyone()) {
  constexpr int kPieces = kColumns / 8;
  for (int i = crew.rank; i < kRowCount * kPieces; i += crew.count) {
    const int row = i / kPieces, piece = i % kPieces;
    const bool is_live = row < live;
    copy_async_16(to + row * kStride + piece * 8, from + (is_live ? row * stride : 0) + piece * 8, is_live);
  }
}

template <int kFloats>
__device__ __forceinline__ void ask_floats(float* to, const float* from, Crew crew = everyone()) {
  for (int i = crew.rank; i < kFloats / 4; i += crew.count) copy_async_16(to + i * 4, from + i * 4, true);
}

// Fragments of a [16, 16] tile as the first factor, from row-major memory.
template <int kStride>
__device__ __forceinline__ void first_factor(u32 (&a)[4], const bf16* tile) {
  const int lane = threadIdx.x & 31;
  load_matrices(a, tile + (lane & 15) * kStride + (lane >> 4) * 8);
}

// The same of the transpose of what is in memory: element (i, j) is at row j, column i.
template <int kStride>
__device__ __forceinline__ void first_factor_transposed(u32 (&a)[4], const bf16* tile) {
  const int lane = threadIdx.x & 31;
  load_matrices_transposed(a, tile + ((lane & 7) + (lane >> 4) * 8) * kStride + ((lane >> 3) & 1) * 8);
}

// A [16, 16] tile as the second factor, element (k, n) at row n, column k: b[0], b[1] for columns n < 8, then b[2], b[3].
template <int kStride>
__device__ __forceinline__ void second_factor_by_columns(u32 (&b)[4], const bf16* tile) {
  const int lane = threadIdx.x & 31;
  load_matrices(b, tile + ((lane & 7) + (lane >> 4) * 8) * kStride + ((lane >> 3) & 1) * 8);
}

// The same, element (k, n) at row k, column n.
template <int kStride>
__device__ __forceinline__ void second_factor(u32 (&b)[4], const bf16* tile) {
  const int lane = threadIdx.x & 31;
  load_matrices_transposed(b, tile + (lane & 15) * kStride + (lane >> 4) * 8);
}

// acc [16, 16 tiles] += a b for one tile of 16 columns.
__device__ __forceinline__ void multiply(float (&left)[4], float (&right)[4], const u32 (&a)[4], const u32 (&b)[4]) {
  mma_16x8x16(left, a, b[0], b[1]);
  mma_16x8x16(right, a, b[2], b[3]);
}

// Two sums of 16 rows as the first factor of the next product: columns of one tile of 16.
__device__ __forceinline__ void rounded(u32 (&a)[4], const float (&left)[4], const float (&right)[4]) {
  a[0] = pack_bf16(left[0], left[1]), a[1] = pack_bf16(left[2], left[3]);
  a[2] = pack_bf16(right[0], right[1]), a[3] = pack_bf16(right[2], right[3]);
}

// Row r / 4 by `upper`, row r / 4 + 8 by `lower`.
__device__ __forceinline__ void scale_rows(u32 (&a)[4], float upper, float lower) {
  a[0] = pack_bf16(low_half(a[0]) * upper, high_half(a[0]) * upper);
  a[1] = pack_bf16(low_half(a[1]) * lower, high_half(a[1]) * lower);
  a[2] = pack_bf16(low_half(a[2]) * upper, high_half(a[2]) * upper);
  a[3] = pack_bf16(low_half(a[3]) * lower, high_half(a[3]) * lower);
}

__device__ __forceinline__ u32 pair_at(const bf16* at) { return *reinterpret_cast<const u32*>(at); }
__device__ __forceinline__ void put_pair(bf16* at, float first, float second) {
  *reinterpret_cast<u32*>(at) = pack_bf16(first, second);
}

// Rows upper and upper + 8 of an accumulator of kTiles tiles of 8 columns, as bf16; `to` is the first column of row `upper`, the other
// row `below` elements on. Four tiles at a time are exchanged between the four lanes of a row, so that each writes 16 bytes.
template <int kTiles>
__device__ __forceinline__ void put_rows(bf16* to, i64 below, const float (&acc)[kTiles][4], bool is_upper_live, bool is_lower_live) {
  const int q = threadIdx.x & 3;
#pragma unroll
  for (int n = 0; n + 4 <= kTiles; n += 4) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      u32 w[4];
#pragma unroll
      for (int i = 0; i < 4; i++) w[i] = pack_bf16(acc[n + i][2 * half], acc[n + i][2 * half + 1]);
      // Lane q ends with tile n + q: first neighbours swap one of two tiles, then pairs of lanes.
      const u32 got0 = __shfl_xor_sync(kAllLanes, q & 1 ? w[0] : w[1], 1), got1 = __shfl_xor_sync(kAllLanes, q & 1 ? w[2] : w[3], 1);
      const u32 a0 = q & 1 ? got0 : w[0], a1 = q & 1 ? w[1] : got0, b0 = q & 1 ? got1 : w[2], b1 = q & 1 ? w[3] : got1;
      const u32 far0 = __shfl_xor_sync(kAllLanes, q & 2 ? a0 : b0, 2), far1 = __shfl_xor_sync(kAllLanes, q & 2 ? a1 : b1, 2);
      const uint4 tile = q & 2 ? make_uint4(far0, far1, b0, b1) : make_uint4(a0, a1, far0, far1);
      if (half ? is_lower_live : is_upper_live) *reinterpret_cast<uint4*>(to + half * below + (n + q) * 8) = tile;
    }
  }
#pragma unroll
  for (int n = kTiles / 4 * 4; n < kTiles; n++) {
    if (is_upper_live) put_pair(to + n * 8 + 2 * q, acc[n][0], acc[n][1]);
    if (is_lower_live) put_pair(to + below + n * 8 + 2 * q, acc[n][2], acc[n][3]);
  }
}

// The sum over the four lanes that share a row of an accumulator.
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

// ---- Decays ----

// One warp per head. Grid [chunks, lanes].
extern "C" __global__ void scan_decays(int tokens, int heads, int chunks, const int* resets, const float* dt, const float* a_log,
                                       float* decays, int* starts) {
  const int lane = threadIdx.x & 31;
  const i64 unit = (i64)blockIdx.y * chunks + blockIdx.x, row = (i64)blockIdx.y * tokens + blockIdx.x * kChunk;
  const int live = min(kChunk, tokens - (int)blockIdx.x * kChunk);
  for (int head = threadIdx.x >> 5; head < heads; head += blockDim.x >> 5) {
    const float a = -expf(a_log[head]) * kLog2E;
    float before = 0.f;
    for (int t = lane; t < kChunk; t += 32) {
      const float step = t < live ? dt[(row + t) * heads + head] : 0.f;
      float sum = step * a;
      for (int back = 1; back < 32; back <<= 1) {
        const float other = __shfl_up_sync(kAllLanes, sum, back);
        if (lane >= back) sum += other;
      }
      sum += before;
      before = __shfl_sync(kAllLanes, sum, 31);
      float* to = decays + (unit * heads + head) * 2 * kChunk;
      to[t] = sum;
      to[kChunk + t] = step;
    }
  }
  if (threadIdx.x >= 32) return;
  int before = -1;
  for (int t = lane; t < kChunk; t += 32) {
    const u32 marks = __ballot_sync(kAllLanes, resets && t < live && resets[row + t]);
    const u32 upto = marks & (0xffffffffu >> (31 - lane));
    const int start = upto ? (t & 32) + 31 - __clz((int)upto) : before;
    starts[unit * kChunk + t] = start;
    before = __shfl_sync(kAllLanes, start, 31);
  }
}

// What a chunk's decays say of token t.
struct Decay {
  const float* cs;
  const float* dt;
  const int* start;
  __device__ __forceinline__ float from_start(int t) const { return start[t] < 0 ? fast_exp2(cs[t]) : 0.f; }
  __device__ __forceinline__ float to_end(int t) const {
    return t >= start[kChunk - 1] ? fast_exp2(cs[kChunk - 1] - cs[t]) : 0.f;
  }
  __device__ __forceinline__ float whole() const { return from_start(kChunk - 1); }
};

// ---- States from chunk to chunk ----

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

// ---- Outputs ----

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

// ---- Gradients ----

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
