// The backward pass of the causal convolution. Formulas: src/devices/reference/mixer.ts.
#include "conv.cuh"

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
