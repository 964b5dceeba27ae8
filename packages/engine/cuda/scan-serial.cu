// The scan token by token, for every shape and precision: the recurrence of src/devices/reference/scan.ts with the state in
// registers. chunks.cuh tells of the fast path.
//
// All four results are one recurrence with other roles, H = a H + u (outer) v, r = H w:
//   y:  rows p, u = dt x, v = B, w = C;     dC: rows n, u = B, v = dt x, w = dy  (forward in time)
//   dX: rows p, u = dy, v = C, w = B;       dB: rows n, u = C, v = dy, w = x     (backward in time)
#include "common.cuh"

// Defined when compiled: HEAD_DIM, STATE.
constexpr int P = HEAD_DIM, N = STATE;
// Lanes of a warp that share a row of H, and columns of each.
constexpr int kSplit = 4;

struct Shape {
  int tokens, heads, groups;
  const int* resets;
  const Act* xbc;
  const float* dt;
  const float* a_log;
};

struct Place {
  i64 row;
  int head, group;
  float a;
  const Shape& s;
  int channels;

  __device__ __forceinline__ Place(const Shape& shape) : s(shape) {
    head = blockIdx.x, row = (i64)blockIdx.y * s.tokens;
    group = head / (s.heads / s.groups);
    a = -expf(s.a_log[head]);
    channels = s.heads * P + 2 * s.groups * N;
  }
  __device__ __forceinline__ const Act* x(int t) const { return s.xbc + (row + t) * channels + head * P; }
  __device__ __forceinline__ const Act* b(int t) const { return s.xbc + (row + t) * channels + s.heads * P + group * N; }
  __device__ __forceinline__ const Act* c(int t) const { return b(t) + s.groups * N; }
  __device__ __forceinline__ float dt(int t) const { return s.dt[(row + t) * s.heads + head]; }
  __device__ __forceinline__ bool reset(int t) const { return s.resets && s.resets[row + t]; }
  // What the state before token t is multiplied by.
  __device__ __forceinline__ float decay(int t, float log_retention = 0.f) const {
    return reset(t) ? 0.f : expf(a * dt(t) + log_retention);
  }
};

// H [kRows, kColumns]; thread r * kSplit + q holds columns q, q + kSplit, ... of row r. Threads beyond the rows hold nothing, but take
// part in the exchange.
template <int kRows, int kColumns>
struct Matrix {
  static constexpr int kOwn = (kColumns + kSplit - 1) / kSplit;
  float h[kOwn];
  int r, q;

  __device__ __forceinline__ Matrix() : r(threadIdx.x / kSplit), q(threadIdx.x % kSplit) {
    for (int i = 0; i < kOwn; i++) h[i] = 0.f;
  }
  __device__ __forceinline__ bool holds(int i) const { return r < kRows && i * kSplit + q < kColumns; }
  __device__ __forceinline__ int column(int i) const { return i * kSplit + q; }

  template <class V, class W>
  __device__ __forceinline__ float step(float decay, float u, V v, W w) {
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < kOwn; i++) {
      if (!holds(i)) break;
      h[i] = decay * h[i] + u * v(column(i));
      sum += h[i] * w(column(i));
    }
    for (int step = 1; step < kSplit; step <<= 1) sum += __shfl_xor_sync(kAllLanes, sum, step);
    return sum;
  }

  // The same; `passed`: the part of the result that passed the decay.
  template <class V, class W>
  __device__ __forceinline__ float step(float decay, float u, V v, W w, float& passed) {
    float sum = 0.f, old = 0.f;
#pragma unroll
    for (int i = 0; i < kOwn; i++) {
      if (!holds(i)) break;
      const float kept = decay * h[i];
      h[i] = kept + u * v(column(i));
      old += kept * w(column(i));
      sum += h[i] * w(column(i));
    }
    for (int step = 1; step < kSplit; step <<= 1) {
      sum += __shfl_xor_sync(kAllLanes, sum, step);
      old += __shfl_xor_sync(kAllLanes, old, step);
    }
    passed = old;
    return sum;
  }
};

// y, and the final state; `initial` receives the one before (null: neither is wanted). One block per [head, lane].
extern "C" __global__ void scan_serial(int tokens, int heads, int groups, const int* resets, const Act* xbc, const float* dt,
                                       const float* a_log, float log_retention, float insertion, const float* skip, float* state,
                                       i64 state_stride, float* initial, i64 initial_stride, Act* y) {
  const Shape s = {tokens, heads, groups, resets, xbc, dt, a_log};
  const Place at(s);
  Matrix<P, N> h;
  float* own = state + blockIdx.y * state_stride + (i64)at.head * P * N;
  float* before = initial + blockIdx.y * initial_stride + (i64)at.head * P * N;
  for (int i = 0; i < h.kOwn; i++) {
    if (!h.holds(i)) continue;
    h.h[i] = own[h.r * N + h.column(i)];
    if (initial) before[h.r * N + h.column(i)] = h.h[i];
  }
  for (int t = 0; t < tokens; t++) {
    const Act *b = at.b(t), *c = at.c(t);
    const float x = h.r < P ? to_float(at.x(t)[h.r]) : 0.f;
    const float sum = h.step(
        at.decay(t, log_retention), at.dt(t) * insertion * x, [=](int n) { return to_float(b[n]); },
        [=](int n) { return to_float(c[n]); });
    if (h.r < P && h.q == 0) store_float(y + (at.row + t) * heads * P + at.head * P + h.r, sum + skip[at.head] * x);
  }
  // Nothing is changed where only the output is wanted.
  for (int i = 0; i < h.kOwn; i++) {
    if (initial && h.holds(i)) own[h.r * N + h.column(i)] = h.h[i];
  }
}

// Each head's gradient of C, [rows, heads, N], and per [row, head] dy . (H C) less what the token itself gives. Also the product of the final state and its gradient.
extern "C" __global__ void scan_serial_dc(int tokens, int heads, int groups, const int* resets, const Act* xbc, const float* dt,
                                          const float* a_log, const float* initial, i64 initial_stride, const Act* d_y,
                                          const float* d_state, i64 d_state_stride, float* d_c, float* through_y, float* at_end) {
  __shared__ float parts[32];
  __shared__ float totals[2][32];
  const Shape s = {tokens, heads, groups, resets, xbc, dt, a_log};
  const Place at(s);
  Matrix<N, P> h;
  const float* before = initial + blockIdx.y * initial_stride + (i64)at.head * P * N;
  for (int i = 0; i < h.kOwn; i++) {
    if (h.holds(i)) h.h[i] = before[h.column(i) * N + h.r];
  }
  for (int t = 0; t < tokens; t++) {
    const Act *x = at.x(t), *g = d_y + (at.row + t) * heads * P + at.head * P;
    const float step = at.dt(t), b = h.r < N ? to_float(at.b(t)[h.r]) : 0.f;
    float passed;
    const float sum = h.step(
        at.decay(t), step * b, [=](int p) { return to_float(x[p]); }, [=](int p) { return to_float(g[p]); }, passed);
    const bool owner = h.r < N && h.q == 0;
    if (owner) d_c[((at.row + t) * heads + at.head) * N + h.r] = sum;
    const float total = block_sum(owner ? passed * to_float(at.c(t)[h.r]) : 0.f, totals[t & 1]);
    if (threadIdx.x == 0) through_y[(at.row + t) * heads + at.head] = total;
  }
  float product = 0.f;
  if (d_state) {
    const float* d_final = d_state + blockIdx.y * d_state_stride + (i64)at.head * P * N;
    for (int i = 0; i < h.kOwn; i++) {
      if (h.holds(i)) product += h.h[i] * d_final[h.column(i) * N + h.r];
    }
  }
  product = block_sum(product, parts);
  if (threadIdx.x == 0) at_end[blockIdx.y * heads + at.head] = product;
}

// Backward in time with rows of P: the gradient of x. Leaves the gradient of the initial state, if wanted, in `d_initial` (may not be
// d_state: the other kernel reads it).
extern "C" __global__ void scan_serial_dx(int tokens, int heads, int groups, const int* resets, const Act* xbc, const float* dt,
                                          const float* a_log, const float* skip, const Act* d_y, const float* d_state,
                                          i64 d_state_stride, float* d_initial, Act* d_xbc, float* d_skip_parts) {
  __shared__ float parts[32];
  const Shape s = {tokens, heads, groups, resets, xbc, dt, a_log};
  const Place at(s);
  Matrix<P, N> g;
  if (d_state) {
    const float* d_final = d_state + blockIdx.y * d_state_stride + (i64)at.head * P * N;
    for (int i = 0; i < g.kOwn; i++) {
      if (g.holds(i)) g.h[i] = d_final[g.r * N + g.column(i)];
    }
  }
  float decay = 1.f, d_skip = 0.f;
  for (int t = tokens - 1; t >= 0; t--) {
    const Act *b = at.b(t), *c = at.c(t);
    const float dy = g.r < P ? to_float(d_y[(at.row + t) * heads * P + at.head * P + g.r]) : 0.f;
    const float sum = g.step(
        decay, dy, [=](int n) { return to_float(c[n]); }, [=](int n) { return to_float(b[n]); });
    decay = at.decay(t);
    if (g.r < P && g.q == 0) {
      d_skip += dy * to_float(at.x(t)[g.r]);
      store_float(d_xbc + (at.row + t) * at.channels + at.head * P + g.r, at.dt(t) * sum + skip[at.head] * dy);
    }
  }
  d_skip = block_sum(d_skip, parts);
  if (threadIdx.x == 0) d_skip_parts[blockIdx.y * heads + at.head] = d_skip;
  if (!d_initial) return;
  float* to = d_initial + ((i64)blockIdx.y * heads + at.head) * P * N;
  for (int i = 0; i < g.kOwn; i++) {
    if (g.holds(i)) to[g.r * N + g.column(i)] = decay * g.h[i];
  }
}

// Backward in time with rows of N: each head's gradient of B, [rows, heads, N], those of dt and A.
// With G_t the gradient of H_t, <G_t, H_t> = dy_t . (H_t C_t) + <G_t+1, H_t+1> - <G_t+1, dt x (outer) B>, so that the gradient of
// log decay, <G_t, H_t> - <G_t, dt x (outer) B>, needs no states but those at the ends. What a token gives its own output, dy . (dt x
// (outer) B C), is in both and passes no decay: it is left out of both, since with fast decays it is nearly all of them.
extern "C" __global__ void scan_serial_db(int tokens, int heads, int groups, const int* resets, const Act* xbc, const float* dt,
                                          const float* a_log, const Act* d_y, const float* d_state, i64 d_state_stride,
                                          const float* through_y, const float* at_end, float* d_b, float* d_dt, float* d_a_parts) {
  __shared__ float totals[2][32], passed_totals[2][32];
  const Shape s = {tokens, heads, groups, resets, xbc, dt, a_log};
  const Place at(s);
  Matrix<N, P> g;
  if (d_state) {
    const float* d_final = d_state + blockIdx.y * d_state_stride + (i64)at.head * P * N;
    for (int i = 0; i < g.kOwn; i++) {
      if (g.holds(i)) g.h[i] = d_final[g.column(i) * N + g.r];
    }
  }
  float decay = 1.f;
  double later = at_end[blockIdx.y * heads + at.head], d_a = 0;
  for (int t = tokens - 1; t >= 0; t--) {
    const Act *x = at.x(t), *dy = d_y + (at.row + t) * heads * P + at.head * P;
    const float c = g.r < N ? to_float(at.c(t)[g.r]) : 0.f;
    float passed;
    const float sum = g.step(
        decay, c, [=](int p) { return to_float(dy[p]); }, [=](int p) { return to_float(x[p]); }, passed);
    decay = at.decay(t);
    const bool owner = g.r < N && g.q == 0;
    const float step = at.dt(t);
    if (owner) d_b[((at.row + t) * heads + at.head) * N + g.r] = step * sum;
    const float b = owner ? to_float(at.b(t)[g.r]) : 0.f;
    const float direct = block_sum(sum * b, totals[t & 1]), beyond = block_sum(passed * b, passed_totals[t & 1]);
    later += (double)through_y[(at.row + t) * heads + at.head] - (double)step * beyond;
    // Nothing passes a document's start.
    if (at.reset(t)) later = 0;
    d_a += later * step;
    if (threadIdx.x == 0) d_dt[(at.row + t) * heads + at.head] = direct + (float)later * at.a;
  }
  if (threadIdx.x == 0) d_a_parts[blockIdx.y * heads + at.head] = (float)d_a * at.a;
}

// Adds the heads' gradients of B and C, in order. Blocks of one row and its groups' 2 N columns.
extern "C" __global__ void scan_serial_sum_heads(int heads, int groups, const float* d_b, const float* d_c, Act* d_xbc) {
  const i64 row = blockIdx.x;
  const int channels = heads * P + 2 * groups * N, per_group = heads / groups;
  for (int i = threadIdx.x; i < 2 * groups * N; i += blockDim.x) {
    const float* from = i < groups * N ? d_b : d_c;
    const int group = i / N % groups, n = i % N;
    float sum = 0.f;
    for (int head = group * per_group; head < (group + 1) * per_group; head++) sum += from[(row * heads + head) * N + n];
    store_float(d_xbc + row * channels + heads * P + i, sum);
  }
}
