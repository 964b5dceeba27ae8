// What the causal convolution and its backward pass share. Formulas: src/devices/reference/mixer.ts.
#pragma once
#include "common.cuh"

constexpr int kMaxTaps = 4;
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
