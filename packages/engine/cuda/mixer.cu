// The causal convolution, time steps and the gated norm, with their backward passes. Formulas: src/devices/reference/mixer.ts.
#include "common.cuh"

constexpr int kMaxTaps = 4;
constexpr int kPieces = 2;
// Tokens that one thread goes through (kStrip in src/cuda/operations.ts), and how many of them it asks for at once.
constexpr int kStrip = 64, kAhead = 8;

// kWidth channels of one lane: the last tokens' inputs, the newest last, zero beyond the document's start.
template <int kWidth>
struct Window {
  Vec<kWidth> x[kMaxTaps];
  // How many tokens before the newest one belong to its document and are in reach.
  int live;

  __device__ __forceinline__ void push(const Vec<kWidth>& next, bool reset, int taps) {
    if (reset) {
      live = -1;
      for (int k = 0; k < kMaxTaps; k++) {
        for (int j = 0; j < kWidth; j++) x[k].v[j] = 0.f;
      }
    }
    for (int k = 0; k + 1 < kMaxTaps; k++) x[k] = x[k + 1];
    x[kMaxTaps - 1] = next;
    live = live + 1 < taps - 1 ? live + 1 : taps - 1;
  }
};

template <int kWidth>
struct Conv {
  int lane, tokens, channels, taps, channel, raw_stride;
  i64 state_stride;
  const int* resets;
  const Act* raw;
  // Taps before the segment, lane by lane.
  const float* before;
  Vec<kWidth> weight[kMaxTaps], bias;

  __device__ __forceinline__ bool reset(int t) const { return resets && t >= 0 && resets[(i64)lane * tokens + t]; }

  __device__ __forceinline__ Raw<Act, kWidth> token(int t) const {
    return load_raw<kWidth>(raw + ((i64)lane * tokens + t) * raw_stride + channel);
  }

  __device__ __forceinline__ Vec<kWidth> input(int t) const {
    if (t >= 0) return token(t).floats();
    Vec<kWidth> x;
    const float* from = before + lane * state_stride + (i64)(t + taps - 1) * channels + channel;
    for (int j = 0; j < kWidth; j++) x.v[j] = from[j];
    return x;
  }

  // The window of token t - 1.
  __device__ __forceinline__ Window<kWidth> window_before(int t) const {
    Window<kWidth> w;
    w.live = -1;
    for (int k = 0; k < kMaxTaps; k++) {
      for (int j = 0; j < kWidth; j++) w.x[k].v[j] = 0.f;
    }
    for (int k = taps - 1; k > 0; k--) w.push(input(t - k), reset(t - k), taps);
    return w;
  }

  __device__ __forceinline__ Vec<kWidth> apply(const Window<kWidth>& w) const {
    Vec<kWidth> sum = bias;
    for (int k = 0; k < kMaxTaps; k++) {
      for (int j = 0; j < kWidth; j++) sum.v[j] += weight[k].v[j] * w.x[k].v[j];
    }
    return sum;
  }
};

template <int kWidth>
__device__ __forceinline__ Conv<kWidth> make_conv(int tokens, int channels, int taps, int channel, const int* resets, const Act* raw,
                                                  int raw_stride, const float* weight, const float* bias, const float* before,
                                                  i64 state_stride) {
  Conv<kWidth> c = {(int)blockIdx.z, tokens, channels, taps, channel, raw_stride, state_stride, resets, raw, before};
  for (int j = 0; j < kWidth; j++) {
    c.bias.v[j] = bias[channel + j];
    for (int k = 0; k < kMaxTaps; k++) {
      const int tap = k - (kMaxTaps - taps);
      c.weight[k].v[j] = tap < 0 ? 0.f : weight[(channel + j) * taps + tap];
    }
  }
  return c;
}

template <int kWidth>
__device__ __forceinline__ void conv_strip(int tokens, int channels, int taps, const int* resets, const Act* raw, int raw_stride,
                                           const float* weight, const float* bias, const float* before, i64 state_stride, Act* out) {
  const int channel = (blockIdx.x * blockDim.x + threadIdx.x) * kWidth;
  if (channel >= channels) return;
  const Conv<kWidth> c =
      make_conv<kWidth>(tokens, channels, taps, channel, resets, raw, raw_stride, weight, bias, before, state_stride);
  const int first = blockIdx.y * kStrip, end = min(first + kStrip, tokens);
  Window<kWidth> w = c.window_before(first);
  for (int t = first; t < end; t += kAhead) {
    Raw<Act, kWidth> x[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; u++) {
      if (t + u < end) x[u] = c.token(t + u);
    }
#pragma unroll
    for (int u = 0; u < kAhead; u++) {
      if (t + u >= end) break;
      w.push(x[u].floats(), c.reset(t + u), taps);
      Vec<kWidth> y = c.apply(w);
      for (int j = 0; j < kWidth; j++) y.v[j] *= sigmoid(y.v[j]);
      store(out + ((i64)c.lane * tokens + t + u) * channels + channel, y);
    }
  }
}

// Grid [channel blocks, strips, lanes].
extern "C" __global__ void conv(int tokens, int channels, int taps, int vector, const int* resets, const Act* raw, int raw_stride,
                                const float* weight, const float* bias, const float* before, i64 state_stride, Act* out) {
  if (vector == 2)
    conv_strip<2>(tokens, channels, taps, resets, raw, raw_stride, weight, bias, before, state_stride, out);
  else
    conv_strip<1>(tokens, channels, taps, resets, raw, raw_stride, weight, bias, before, state_stride, out);
}

// Taps that leave the segment, [taps - 1, channels] per lane, and a copy of those that entered it, if wanted. Grid [channel blocks,
// lanes]; `before` may be `after`.
extern "C" __global__ void conv_state(int tokens, int channels, int taps, const int* resets, const Act* raw, int raw_stride,
                                      const float* before, i64 before_stride, float* saved, float* after, i64 after_stride) {
  const int channel = blockIdx.x * blockDim.x + threadIdx.x, lane = blockIdx.y;
  if (channel >= channels) return;
  float x[kMaxTaps];
  int start = -taps;
  for (int t = max(0, tokens - taps + 1); t < tokens; t++) {
    if (resets && resets[(i64)lane * tokens + t]) start = t;
  }
  for (int k = 0; k < taps - 1; k++) {
    const int t = tokens - (taps - 1) + k;
    if (t < start)
      x[k] = 0.f;
    else if (t < 0)
      x[k] = before[lane * before_stride + (i64)(t + taps - 1) * channels + channel];
    else
      x[k] = to_float(raw[((i64)lane * tokens + t) * raw_stride + channel]);
  }
  for (int k = 0; k < taps - 1; k++) {
    const i64 at = (i64)k * channels + channel;
    if (saved) saved[(i64)lane * (taps - 1) * channels + at] = before[lane * before_stride + at];
  }
  for (int k = 0; k < taps - 1; k++) after[lane * after_stride + (i64)k * channels + channel] = x[k];
}

template <int kWidth>
__device__ __forceinline__ void conv_backward_strip(int tokens, int channels, int taps, const int* resets, const Act* raw,
                                                    int raw_stride, const float* weight, const float* bias, const float* before,
                                                    i64 state_stride, const Act* d_out, Act* d_raw, int d_raw_stride,
                                                    float* partial) {
  const int channel = (blockIdx.x * blockDim.x + threadIdx.x) * kWidth;
  if (channel >= channels) return;
  const Conv<kWidth> c =
      make_conv<kWidth>(tokens, channels, taps, channel, resets, raw, raw_stride, weight, bias, before, state_stride);
  const int first = blockIdx.y * kStrip, end = min(first + kStrip, tokens);
  const i64 lane_row = (i64)c.lane * tokens;
  Window<kWidth> w = c.window_before(first);
  // d[k] collects the gradient of the input of token t - (kMaxTaps - 1) + k.
  Vec<kWidth> d[kMaxTaps], d_weight[kMaxTaps], d_bias;
  for (int j = 0; j < kWidth; j++) {
    d_bias.v[j] = 0.f;
    for (int k = 0; k < kMaxTaps; k++) d[k].v[j] = d_weight[k].v[j] = 0.f;
  }
  // One token: its gradient before the activation goes to the inputs in the window, and within the strip to the weights.
  auto go = [&](int t, const Vec<kWidth>& x, Vec<kWidth> g, bool is_inside) {
    for (int k = 0; k + 1 < kMaxTaps; k++) d[k] = d[k + 1];
    for (int j = 0; j < kWidth; j++) d[kMaxTaps - 1].v[j] = 0.f;
    w.push(x, c.reset(t), taps);
    const Vec<kWidth> y = c.apply(w);
    for (int j = 0; j < kWidth; j++) {
      const float s = sigmoid(y.v[j]);
      g.v[j] *= s * (1.f + y.v[j] * (1.f - s));
    }
    if (is_inside) {
      for (int j = 0; j < kWidth; j++) {
        d_bias.v[j] += g.v[j];
        for (int k = 0; k < kMaxTaps; k++) d_weight[k].v[j] += g.v[j] * w.x[k].v[j];
      }
    }
    // Beyond a document's start, inputs in the window are zero, but no gradient may go there either.
    const bool is_full = w.live == kMaxTaps - 1;
    for (int k = 0; k < kMaxTaps; k++) {
      if (!is_full && kMaxTaps - 1 - k > w.live) continue;
      for (int j = 0; j < kWidth; j++) d[k].v[j] += g.v[j] * c.weight[k].v[j];
    }
  };
  auto finish = [&](int t) {
    if (t >= first && t < end) store(d_raw + (lane_row + t) * d_raw_stride + channel, d[0]);
  };
  for (int t = first; t < end; t += kAhead) {
    Raw<Act, kWidth> x[kAhead], g[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; u++) {
      if (t + u >= end) break;
      x[u] = c.token(t + u);
      g[u] = load_raw<kWidth>(d_out + (lane_row + t + u) * channels + channel);
    }
#pragma unroll
    for (int u = 0; u < kAhead; u++) {
      if (t + u >= end) break;
      go(t + u, x[u].floats(), g[u].floats(), true);
      finish(t + u - (kMaxTaps - 1));
    }
  }
  // Tokens after the strip read inputs of the strip.
  for (int t = end; t < end + kMaxTaps - 1; t++) {
    if (t < tokens) {
      go(t, c.token(t).floats(), load<kWidth>(d_out + (lane_row + t) * channels + channel), false);
    } else {
      for (int k = 0; k + 1 < kMaxTaps; k++) d[k] = d[k + 1];
    }
    finish(t - (kMaxTaps - 1));
  }
  float* sums = partial + ((i64)c.lane * gridDim.y + blockIdx.y) * channels * (taps + 1);
  for (int j = 0; j < kWidth; j++) {
    for (int k = 0; k < kMaxTaps; k++) {
      const int tap = k - (kMaxTaps - taps);
      if (tap >= 0) sums[(channel + j) * taps + tap] = d_weight[k].v[j];
    }
    sums[channels * taps + channel + j] = d_bias.v[j];
  }
}

// Grid [channel blocks, strips, lanes]; each strip leaves its share of the gradients of weight [channels, taps] and bias in a row of
// `partial`.
extern "C" __global__ void conv_backward(int tokens, int channels, int taps, int vector, const int* resets, const Act* raw,
                                         int raw_stride, const float* weight, const float* bias, const float* before,
                                         i64 state_stride, const Act* d_out, Act* d_raw, int d_raw_stride, float* partial) {
  if (vector == 2)
    conv_backward_strip<2>(tokens, channels, taps, resets, raw, raw_stride, weight, bias, before, state_stride, d_out, d_raw,
                           d_raw_stride, partial);
  else
    conv_backward_strip<1>(tokens, channels, taps, resets, raw, raw_stride, weight, bias, before, state_stride, d_out, d_raw,
                           d_raw_stride, partial);
}

// The gradient of the final taps goes to the inputs they hold, and becomes that of the incoming taps. After conv_backward.
// Grid [channel blocks, lanes].
extern "C" __global__ void conv_state_backward(int tokens, int channels, int taps, const int* resets, const Act* raw, int raw_stride,
                                               const float* weight, const float* bias, const float* before, i64 state_stride,
                                               const Act* d_out, Act* d_raw, int d_raw_stride, float* d_state, i64 d_state_stride) {
  const int channel = blockIdx.x * blockDim.x + threadIdx.x, lane = blockIdx.y, carried = taps - 1;
  if (channel >= channels) return;
  Conv<1> c = make_conv<1>(tokens, channels, taps, channel, resets, raw, raw_stride, weight, bias, before, state_stride);
  c.lane = lane;
  float d_before[kMaxTaps] = {0.f, 0.f, 0.f, 0.f}, d_final[kMaxTaps];
  Window<1> w = c.window_before(0);
  for (int t = 0; t < min(carried, tokens); t++) {
    if (c.reset(t)) break;
    w.push(c.input(t), false, taps);
    const float y = c.apply(w).v[0], s = sigmoid(y);
    const float g = to_float(d_out[((i64)lane * tokens + t) * channels + channel]) * s * (1.f + y * (1.f - s));
    // Tap k of token t reads t - carried + k.
    for (int k = 0; k < carried - t; k++) d_before[t + k] += weight[channel * taps + k] * g;
  }
  for (int k = 0; k < carried; k++) d_final[k] = d_state[lane * d_state_stride + (i64)k * channels + channel];
  int start = -taps;
  for (int t = max(0, tokens - carried); t < tokens; t++) {
    if (c.reset(t)) start = t;
  }
  for (int k = 0; k < carried; k++) {
    const int t = tokens - carried + k;
    if (t < start) continue;
    if (t < 0) {
      d_before[t + carried] += d_final[k];
    } else {
      Act* to = d_raw + ((i64)lane * tokens + t) * d_raw_stride + channel;
      store_float(to, to_float(*to) + d_final[k]);
    }
  }
  for (int k = 0; k < carried; k++) d_state[lane * d_state_stride + (i64)k * channels + channel] = d_before[k];
}

// softplus as PyTorch computes it: the identity above 20.
__device__ __forceinline__ float softplus(float x) { return x > 20.f ? x : log1pf(expf(x)); }

extern "C" __global__ void time_steps(int rows, int heads, float low, float high, const Act* raw, int stride, const float* bias,
                                      float* dt) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= (i64)rows * heads) return;
  const i64 row = i / heads;
  const int head = i - row * heads;
  dt[i] = fminf(fmaxf(softplus(to_float(raw[row * stride + head]) + bias[head]), low), high);
}

// Blocks of 32 x 8 threads: 32 heads, rows in turns. Each leaves its share of the bias's gradient in a row of `partial`
// [gridDim.y, heads].
extern "C" __global__ void time_steps_backward(int rows, int heads, float low, float high, const Act* raw, int stride,
                                               const float* bias, const float* d_dt, Act* d_raw, int d_raw_stride, float* partial) {
  __shared__ float parts[8][33];
  const int head = blockIdx.x * 32 + threadIdx.x;
  float sum = 0.f;
  if (head < heads) {
    for (i64 row = blockIdx.y * 8 + threadIdx.y; row < rows; row += gridDim.y * 8) {
      const float x = to_float(raw[row * stride + head]) + bias[head], dt = softplus(x);
      const float slope = dt < low || dt > high ? 0.f : x > 20.f ? 1.f : 1.f / (1.f + expf(-x));
      const float d = d_dt[row * heads + head] * slope;
      store_float(d_raw + row * d_raw_stride + head, d);
      sum += d;
    }
  }
  parts[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || head >= heads) return;
  sum = 0.f;
  for (int i = 0; i < 8; i++) sum += parts[i][threadIdx.x];
  partial[(i64)blockIdx.y * heads + head] = sum;
}

template <int kWidth>
__device__ __forceinline__ void gated_norm_row(int width, int group_width, int norm_first, float eps, const Act* y, const Act* gate,
                                               int stride, const float* weight, Act* out, float* inverse_rms) {
  __shared__ float parts[32];
  const i64 row = blockIdx.x, group = blockIdx.y, base = row * width + group * group_width;
  const Act* z = gate + row * stride + group * group_width;
  const float* w = weight + group * group_width;
  Vec<kWidth> x[kPieces], gating[kPieces];
  float squares = 0.f;
#pragma unroll
  for (int k = 0; k < kPieces; k++) {
    const int i = (threadIdx.x + k * blockDim.x) * kWidth;
    if (i >= group_width) break;
    x[k] = load<kWidth>(y + base + i);
    gating[k] = load<kWidth>(z + i);
    for (int j = 0; j < kWidth; j++) {
      gating[k].v[j] *= sigmoid(gating[k].v[j]);
      if (!norm_first) x[k].v[j] *= gating[k].v[j];
      squares += x[k].v[j] * x[k].v[j];
    }
  }
  const float inverse = 1.f / sqrtf(block_sum(squares, parts) / group_width + eps);
  if (threadIdx.x == 0) inverse_rms[row * gridDim.y + group] = inverse;
#pragma unroll
  for (int k = 0; k < kPieces; k++) {
    const int i = (threadIdx.x + k * blockDim.x) * kWidth;
    if (i >= group_width) break;
    Vec<kWidth> r = load<kWidth>(w + i);
    for (int j = 0; j < kWidth; j++) r.v[j] *= x[k].v[j] * inverse * (norm_first ? gating[k].v[j] : 1.f);
    store(out + base + i, r);
  }
}

// Grid [rows, groups].
extern "C" __global__ void gated_norm(int width, int group_width, int norm_first, int vector, float eps, const Act* y,
                                      const Act* gate, int stride, const float* weight, Act* out, float* inverse_rms) {
  if (vector == 4)
    gated_norm_row<4>(width, group_width, norm_first, eps, y, gate, stride, weight, out, inverse_rms);
  else
    gated_norm_row<1>(width, group_width, norm_first, eps, y, gate, stride, weight, out, inverse_rms);
}

template <int kWidth, bool kNormFirst>
__device__ __forceinline__ void gated_norm_backward_rows(int rows, int width, int group_width, const Act* y, const Act* gate,
                                                         int stride, const float* weight, const float* inverse_rms, const Act* d_out,
                                                         Act* d_y, Act* d_gate, int d_gate_stride, float* partial, Act* out) {
  __shared__ float parts[2][32];
  const i64 group = blockIdx.y;
  Vec<kWidth> d_w[kPieces];
#pragma unroll
  for (int k = 0; k < kPieces; k++) {
    for (int j = 0; j < kWidth; j++) d_w[k].v[j] = 0.f;
  }
  // The next row is on its way while one is worked on. d_y may be d_out: a row is asked for before it is written.
  Raw<Act, kWidth> next_y[kPieces], next_z[kPieces], next_g[kPieces];
  auto ask = [&](i64 row) {
    const i64 base = row * width + group * group_width;
#pragma unroll
    for (int k = 0; k < kPieces; k++) {
      const int i = (threadIdx.x + k * blockDim.x) * kWidth;
      if (i >= group_width) break;
      next_y[k] = load_raw<kWidth>(y + base + i);
      next_z[k] = load_raw<kWidth>(gate + row * stride + group * group_width + i);
      next_g[k] = load_raw<kWidth>(d_out + base + i);
    }
  };
  ask(blockIdx.x);
  int turn = 0;
  for (i64 row = blockIdx.x; row < rows; row += gridDim.x, turn ^= 1) {
    const i64 base = row * width + group * group_width;
    Vec<kWidth> yv[kPieces], g[kPieces], gating[kPieces], slope[kPieces];
#pragma unroll
    for (int k = 0; k < kPieces; k++) {
      yv[k] = next_y[k].floats(), gating[k] = next_z[k].floats(), g[k] = next_g[k].floats();
    }
    if (row + gridDim.x < rows) ask(row + gridDim.x);
    float dots = 0.f;
#pragma unroll
    for (int k = 0; k < kPieces; k++) {
      const int i = (threadIdx.x + k * blockDim.x) * kWidth;
      if (i >= group_width) break;
      const Vec<kWidth> w = load<kWidth>(weight + group * group_width + i);
      for (int j = 0; j < kWidth; j++) {
        const float zv = gating[k].v[j], s = sigmoid(zv);
        gating[k].v[j] = zv * s;
        slope[k].v[j] = s * (1.f + zv * (1.f - s));
        dots += yv[k].v[j] * gating[k].v[j] * g[k].v[j] * w.v[j];
      }
    }
    const float inverse = inverse_rms[row * gridDim.y + group];
    const float mean = block_sum(dots, parts[turn]) * inverse * inverse * inverse / group_width;
#pragma unroll
    for (int k = 0; k < kPieces; k++) {
      const int i = (threadIdx.x + k * blockDim.x) * kWidth;
      if (i >= group_width) break;
      const Vec<kWidth> w = load<kWidth>(weight + group * group_width + i);
      Vec<kWidth> dy, dz, again;
      for (int j = 0; j < kWidth; j++) {
        // What was normed is y * silu(z) or y; what its gradient meets is 1 or silu(z).
        const float gated = gating[k].v[j], x = kNormFirst ? yv[k].v[j] : yv[k].v[j] * gated, after = kNormFirst ? gated : 1.f;
        const float normed = x * inverse, dx = g[k].v[j] * after * w.v[j] * inverse - x * mean;
        d_w[k].v[j] += g[k].v[j] * normed * after;
        again.v[j] = normed * w.v[j] * after;
        dz.v[j] = (kNormFirst ? g[k].v[j] * normed * w.v[j] : dx * yv[k].v[j]) * slope[k].v[j];
        dy.v[j] = kNormFirst ? dx : dx * gated;
      }
      store(out + base + i, again);
      store(d_gate + row * d_gate_stride + group * group_width + i, dz);
      store(d_y + base + i, dy);
    }
  }
#pragma unroll
  for (int k = 0; k < kPieces; k++) {
    const int i = (threadIdx.x + k * blockDim.x) * kWidth;
    if (i < group_width) store(partial + (i64)blockIdx.x * width + group * group_width + i, d_w[k]);
  }
}

// Grid [row blocks, groups]; shares of the weight's gradient in `partial` [row blocks, width]. d_y may be d_out.
extern "C" __global__ void gated_norm_backward(int rows, int width, int group_width, int norm_first, int vector, const Act* y,
                                               const Act* gate, int stride, const float* weight, const float* inverse_rms,
                                               const Act* d_out, Act* d_y, Act* d_gate, int d_gate_stride, float* partial,
                                               Act* out) {
  if (vector == 4 && !norm_first)
    gated_norm_backward_rows<4, false>(rows, width, group_width, y, gate, stride, weight, inverse_rms, d_out, d_y, d_gate,
                                       d_gate_stride, partial, out);
  else if (vector == 4)
    gated_norm_backward_rows<4, true>(rows, width, group_width, y, gate, stride, weight, inverse_rms, d_out, d_y, d_gate,
                                      d_gate_stride, partial, out);
  else if (!norm_first)
    gated_norm_backward_rows<1, false>(rows, width, group_width, y, gate, stride, weight, inverse_rms, d_out, d_y, d_gate,
                                       d_gate_stride, partial, out);
  else
    gated_norm_backward_rows<1, true>(rows, width, group_width, y, gate, stride, weight, inverse_rms, d_out, d_y, d_gate,
                                      d_gate_stride, partial, out);
}
