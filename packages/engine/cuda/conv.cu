// The causal convolution with SiLU, and the taps that a segment leaves. Formulas: src/devices/reference/mixer.ts.
#include "conv.cuh"

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
