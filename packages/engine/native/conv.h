// Causal depthwise convolution and SiLU, with the taps carried from segment to segment. Formulas: src/devices/reference/mixer.ts.
#pragma once
#include "dense.h"

namespace SEGUE_VARIANT {

constexpr int kSlotSince = 4, kSlotWeights = 5, kSlotRow = 6, kSlotTaps = 7;

// Rows of a lane that one task of a convolution handles, and how many of them it goes through at a time: few enough that the
// processor fetches ahead along each of them.
constexpr long kConvRows = 64, kStrip = 8;
// The widest convolution; the device refuses others.
constexpr int kMaxTaps = 4;

template <int n>
struct Constant {
  static constexpr int value = n;
};

// since[r]: the token of the last document start at or before row r's token, in its lane; before the segment: very negative.
static inline int* document_starts(Context* ctx, long lanes, long tokens, const int* resets) {
  int* since = (int*)shared_scratch(ctx, kSlotSince, lanes * tokens);
  for (long b = 0; b < lanes; b++) {
    int last = -(1 << 30);
    for (long t = 0; t < tokens; t++) {
      if (resets && resets[b * tokens + t]) last = (int)t;
      since[b * tokens + t] = last;
    }
  }
  return since;
}

// [channels, taps] to [taps, channels], so that a tap's weights lie side by side.
static inline const float* weights_by_tap(Context* ctx, long channels, long taps, const float* weight) {
  float* by_tap = shared_scratch(ctx, kSlotWeights, taps * channels);
  for (long c = 0; c < channels; c++) {
    for (long k = 0; k < taps; k++) by_tap[k * channels + c] = weight[c * taps + k];
  }
  return by_tap;
}

struct Conv {
  long lanes, tokens, channels, taps;
  const float* raw;
  long stride;
  const float *by_tap, *bias;
  // The rows before lane b's segment: before + b * before_stride.
  const float* before;
  long before_stride;
  const int* since;
  // A row of zeros.
  const float* nothing;

  // Rows that meet each tap at token t of lane b; zeros where a document start lies between.
  void sources(long b, long t, const float** rows) const {
    for (long k = 0; k < taps; k++) {
      long source = t - (taps - 1) + k;
      if (source < since[b * tokens + t])
        rows[k] = nothing;
      else if (source < 0)
        rows[k] = before + b * before_stride + (source + taps - 1) * channels;
      else
        rows[k] = raw + (b * tokens + source) * stride;
    }
  }

  // Rows whose taps meet token t: tap k of token t + taps - 1 - k of `gradients` [rows, channels]; zeros where it does not reach
  // back.
  void readers(long b, long t, const float* gradients, const float** rows) const {
    for (long k = 0; k < taps; k++) {
      long reader = t + taps - 1 - k;
      bool reads = reader < tokens && t >= since[b * tokens + reader];
      rows[k] = reads ? gradients + (b * tokens + reader) * channels : nothing;
    }
  }
};

static Conv make_conv(Context* ctx, long lanes, long tokens, long channels, long taps, const int* resets, const float* raw,
                      long stride, const float* weight, const float* bias, const float* before) {
  float* nothing = shared_scratch(ctx, kSlotRow, round_up(channels, kWidth));
  memset(nothing, 0, (size_t)round_up(channels, kWidth) * 4);
  return {lanes,
          tokens,
          channels,
          taps,
          raw,
          stride,
          weights_by_tap(ctx, channels, taps, weight),
          bias,
          before,
          (taps - 1) * channels,
          document_starts(ctx, lanes, tokens, resets),
          nothing};
}

// Weights of all taps for kWidth channels, and their products with rows; kTaps as a constant keeps them in registers.
template <int kTaps>
struct TapWeights {
  Vec weight[kTaps];
  TapWeights(const Conv& conv, long c) {
    for (int k = 0; k < kTaps; k++) weight[k] = load_part(conv.by_tap + k * conv.channels + c, conv.channels - c);
  }
  Vec apply(Vec sum, const float* const* rows, long c, long live) const {
    for (int k = 0; k < kTaps; k++) sum += weight[k] * load_part(rows[k] + c, live);
    return sum;
  }
};

// One strip of rows; the channels outermost, so that weights and sums stay in registers.
template <int kTaps>
static void conv_rows(const Conv& conv, long b, long first, long end, float* out) {
  const float* rows[kStrip][kMaxTaps];
  for (long t = first; t < end; t++) conv.sources(b, t, rows[t - first]);
  for (long c = 0; c < conv.channels; c += kWidth) {
    const TapWeights<kTaps> taps(conv, c);
    long live = conv.channels - c;
    Vec bias = load_part(conv.bias + c, live);
    for (long t = first; t < end; t++) {
      Vec x = taps.apply(bias, rows[t - first], c, live);
      store_part(out + (b * conv.tokens + t) * conv.channels + c, live, x * sigmoid(x));
    }
  }
}

// Turns the gradients of the rows into those before the activation, and adds to the gradients of weights [taps, channels] and bias.
template <int kTaps>
static void conv_rows_backward(const Conv& conv, long b, long first, long end, float* gradients, float* d_weight, float* d_bias) {
  const float* rows[kStrip][kMaxTaps];
  for (long t = first; t < end; t++) conv.sources(b, t, rows[t - first]);
  for (long c = 0; c < conv.channels; c += kWidth) {
    const TapWeights<kTaps> taps(conv, c);
    long live = conv.channels - c;
    Vec bias = load_part(conv.bias + c, live), d_b = load_part(d_bias + c, live), d_w[kTaps];
    for (int k = 0; k < kTaps; k++) d_w[k] = load_part(d_weight + k * conv.channels + c, live);
    for (long t = first; t < end; t++) {
      Vec x = taps.apply(bias, rows[t - first], c, live), s = sigmoid(x);
      float* g = gradients + (b * conv.tokens + t) * conv.channels + c;
      Vec dx = load_part(g, live) * (s * (1.f + x * (1.f - s)));
      store_part(g, live, dx);
      d_b += dx;
      for (int k = 0; k < kTaps; k++) d_w[k] += dx * load_part(rows[t - first][k] + c, live);
    }
    for (int k = 0; k < kTaps; k++) store_part(d_weight + k * conv.channels + c, live, d_w[k]);
    store_part(d_bias + c, live, d_b);
  }
}

template <int kTaps>
static void conv_inputs_backward(const Conv& conv, long b, long first, long end, const float* gradients, float* d_raw,
                                 long stride) {
  const float* rows[kStrip][kMaxTaps];
  for (long t = first; t < end; t++) conv.readers(b, t, gradients, rows[t - first]);
  for (long c = 0; c < conv.channels; c += kWidth) {
    const TapWeights<kTaps> taps(conv, c);
    long live = conv.channels - c;
    for (long t = first; t < end; t++)
      store_part(d_raw + (b * conv.tokens + t) * stride + c, live, taps.apply(Vec{}, rows[t - first], c, live));
  }
}

// Calls f(taps as a constant, lane, first row, end) for each strip of a task.
template <class F>
static void for_strips(const Conv& conv, long task, F f) {
  long blocks = (conv.tokens + kConvRows - 1) / kConvRows;
  long b = task / blocks, first = task % blocks * kConvRows, end = min_long(first + kConvRows, conv.tokens);
  for (long t = first; t < end; t += kStrip) {
    long strip_end = min_long(t + kStrip, end);
    switch (conv.taps) {
      case 2: f(Constant<2>{}, b, t, strip_end); break;
      case 3: f(Constant<3>{}, b, t, strip_end); break;
      case 4: f(Constant<4>{}, b, t, strip_end); break;
    }
  }
}

// Where tap row k (of taps - 1) after the segment comes from: a token, a row before the segment (negative), or nowhere (false).
static inline bool final_tap(const Conv& conv, long b, long k, long* source) {
  *source = conv.tokens - (conv.taps - 1) + k;
  return *source >= conv.since[(b + 1) * conv.tokens - 1];
}

}  // namespace SEGUE_VARIANT

SEGUE_API void SEGUE_NAME(conv)(Context* ctx, int lanes, int tokens, int channels, int taps, const int* resets, const float* raw,
                                int stride, const float* weight, const float* bias, float* state, double state_stride, float* saved,
                                float* out) {
  using namespace SEGUE_VARIANT;
  const long carried = taps - 1, lane_taps = carried * channels, blocks = (tokens + kConvRows - 1) / kConvRows;
  // The incoming taps are copied first: the state is overwritten at the end.
  float* before = saved ? saved : shared_scratch(ctx, kSlotTaps, lanes * lane_taps + 1);
  for (long b = 0; b < lanes; b++) memcpy(before + b * lane_taps, state + b * (long)state_stride, (size_t)lane_taps * 4);
  const Conv conv = make_conv(ctx, lanes, tokens, channels, taps, resets, raw, stride, weight, bias, before);
  parallel_for(ctx, (double)lanes * tokens * channels, lanes * blocks, [&](long task) {
    for_strips(conv, task, [&](auto n, long b, long first, long end) { conv_rows<n.value>(conv, b, first, end, out); });
  });
  for (long b = 0; b < lanes; b++) {
    for (long k = 0; k < carried; k++) {
      float* to = state + b * (long)state_stride + k * channels;
      long source;
      if (!final_tap(conv, b, k, &source))
        memset(to, 0, (size_t)channels * 4);
      else if (source < 0)
        memcpy(to, before + b * lane_taps + (source + carried) * channels, (size_t)channels * 4);
      else
        memcpy(to, raw + (b * (long)tokens + source) * stride, (size_t)channels * 4);
    }
  }
}

// d_out is used up: it becomes the gradient before the activation.
SEGUE_API void SEGUE_NAME(conv_backward)(Context* ctx, int lanes, int tokens, int channels, int taps, const int* resets,
                                         const float* raw, int stride, const float* weight, const float* bias, const float* saved,
                                         float* d_out, float* d_raw, int d_stride, float* d_weight, float* d_bias, float* d_state,
                                         double d_state_stride) {
  using namespace SEGUE_VARIANT;
  const long carried = taps - 1, lane_taps = carried * channels, blocks = (tokens + kConvRows - 1) / kConvRows,
             tasks = lanes * blocks;
  const Conv conv = make_conv(ctx, lanes, tokens, channels, taps, resets, raw, stride, weight, bias, saved);
  const long partial_floats = (taps + 1) * (long)channels;
  float* partial = shared_scratch(ctx, kSlotPartial, (tasks + 1) * partial_floats);
  const double floats = (double)lanes * tokens * channels;
  parallel_for(ctx, floats, tasks, [&](long task) {
    float* d_w = partial + task * partial_floats;
    memset(d_w, 0, (size_t)partial_floats * 4);
    for_strips(conv, task, [&](auto n, long b, long first, long end) {
      conv_rows_backward<n.value>(conv, b, first, end, d_out, d_w, d_w + taps * (long)channels);
    });
  });
  parallel_for(ctx, floats, tasks, [&](long task) {
    for_strips(conv, task, [&](auto n, long b, long first, long end) {
      conv_inputs_backward<n.value>(conv, b, first, end, d_out, d_raw, d_stride);
    });
  });
  float* total = partial + tasks * partial_floats;
  sum_blocks(partial, tasks, partial_floats, total);
  for (long c = 0; c < channels; c++) {
    for (long k = 0; k < taps; k++) d_weight[c * taps + k] = total[k * channels + c];
  }
  memcpy(d_bias, total + taps * (long)channels, (size_t)channels * 4);
  if (!d_state) return;
  float* d_before = shared_scratch(ctx, kSlotTaps, lane_taps + 1);
  for (long b = 0; b < lanes; b++) {
    float* d_final = d_state + b * (long)d_state_stride;
    memset(d_before, 0, (size_t)lane_taps * 4);
    for (long j = 0; j < carried; j++) {
      // Row j before the segment is token j - carried; tap k of token j - k reads it.
      for (long k = 0; k <= j; k++) {
        long reader = j - k;
        if (reader >= tokens || conv.since[b * tokens + reader] >= 0) continue;
        const float* g = d_out + (b * tokens + reader) * channels;
        for (long c = 0; c < channels; c++) d_before[j * channels + c] += conv.by_tap[k * channels + c] * g[c];
      }
    }
    for (long k = 0; k < carried; k++) {
      long source;
      if (!final_tap(conv, b, k, &source)) continue;
      float* to = source < 0 ? d_before + (source + carried) * channels : d_raw + (b * tokens + source) * d_stride;
      for (long c = 0; c < channels; c++) to[c] += d_final[k * channels + c];
    }
    memcpy(d_final, d_before, (size_t)lane_taps * 4);
  }
}
