// What stands around the scan in a Mamba-2 block: convolution, time steps, gated norm. Formulas: src/devices/reference/mixer.ts.
#pragma once
#include "dense.h"

namespace SEGUE_VARIANT {

constexpr int kSlotSince = 4, kSlotWeights = 5, kSlotRow = 6, kSlotTaps = 7;

// Rows of a lane that one task of a convolution handles.
constexpr long kConvRows = 64;
constexpr int kMaxTaps = 8;

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

  // Rows that meet each tap at token t of lane b; null where a document start lies between.
  void sources(long b, long t, const float** rows) const {
    for (long k = 0; k < taps; k++) {
      long source = t - (taps - 1) + k;
      if (source < since[b * tokens + t]) rows[k] = nullptr;
      else if (source < 0) rows[k] = before + b * before_stride + (source + taps - 1) * channels;
      else rows[k] = raw + (b * tokens + source) * stride;
    }
  }

  Vec at(const float* const* rows, long c) const {
    long live = channels - c;
    Vec sum = load_part(bias + c, live);
    for (long k = 0; k < taps; k++) {
      if (rows[k]) sum += load_part(by_tap + k * channels + c, live) * load_part(rows[k] + c, live);
    }
    return sum;
  }
};

// Where tap row k (of taps - 1) after the segment comes from: a token, a row before the segment (negative), or nowhere (false).
static inline bool final_tap(const Conv& conv, long b, long k, long* source) {
  *source = conv.tokens - (conv.taps - 1) + k;
  return *source >= conv.since[(b + 1) * conv.tokens - 1];
}

}  // namespace SEGUE_VARIANT

SEGUE_API void SEGUE_NAME(conv)(Context* ctx, int lanes, int tokens, int channels, int taps, const int* resets, const float* raw, int stride,
                                const float* weight, const float* bias, float* state, double state_stride, float* saved, float* out) {
  using namespace SEGUE_VARIANT;
  const long carried = taps - 1, lane_taps = carried * channels, blocks = (tokens + kConvRows - 1) / kConvRows;
  // The incoming taps are copied first: the state is overwritten at the end.
  float* before = saved ? saved : shared_scratch(ctx, kSlotTaps, lanes * lane_taps + 1);
  for (long b = 0; b < lanes; b++) memcpy(before + b * lane_taps, state + b * (long)state_stride, (size_t)lane_taps * 4);
  const Conv conv = {lanes, tokens, channels, taps, raw, stride, weights_by_tap(ctx, channels, taps, weight), bias, before, lane_taps,
                     document_starts(ctx, lanes, tokens, resets)};
#pragma omp parallel for num_threads(ctx->threads) if (worth_threads(ctx, (double)lanes * tokens * channels))
  for (long task = 0; task < lanes * blocks; task++) {
    long b = task / blocks, first = task % blocks * kConvRows;
    for (long t = first; t < min_long(first + kConvRows, tokens); t++) {
      const float* rows[kMaxTaps];
      conv.sources(b, t, rows);
      float* to = out + (b * tokens + t) * channels;
      if (taps == 4 && rows[0]) {
        const float *w = conv.by_tap, *w1 = w + channels, *w2 = w1 + channels, *w3 = w2 + channels;
        for (long c = 0; c < channels; c += kWidth) {
          long live = channels - c;
          Vec x = load_part(bias + c, live);
          x += load_part(w + c, live) * load_part(rows[0] + c, live);
          x += load_part(w1 + c, live) * load_part(rows[1] + c, live);
          x += load_part(w2 + c, live) * load_part(rows[2] + c, live);
          x += load_part(w3 + c, live) * load_part(rows[3] + c, live);
          store_part(to + c, live, x * sigmoid(x));
        }
      } else {
        for (long c = 0; c < channels; c += kWidth) {
          Vec x = conv.at(rows, c);
          store_part(to + c, channels - c, x * sigmoid(x));
        }
      }
    }
  }
  for (long b = 0; b < lanes; b++) {
    for (long k = 0; k < carried; k++) {
      float* to = state + b * (long)state_stride + k * channels;
      long source;
      if (!final_tap(conv, b, k, &source)) memset(to, 0, (size_t)channels * 4);
      else if (source < 0) memcpy(to, before + b * lane_taps + (source + carried) * channels, (size_t)channels * 4);
      else memcpy(to, raw + (b * (long)tokens + source) * stride, (size_t)channels * 4);
    }
  }
}

// d_out is used up: it becomes the gradient before the activation.
SEGUE_API void SEGUE_NAME(conv_backward)(Context* ctx, int lanes, int tokens, int channels, int taps, const int* resets, const float* raw,
                                         int stride, const float* weight, const float* bias, const float* saved, float* d_out, float* d_raw,
                                         int d_stride, float* d_weight, float* d_bias, float* d_state, double d_state_stride) {
  using namespace SEGUE_VARIANT;
  const long carried = taps - 1, lane_taps = carried * channels, blocks = (tokens + kConvRows - 1) / kConvRows, tasks = lanes * blocks;
  const Conv conv = {lanes, tokens, channels, taps, raw, stride, weights_by_tap(ctx, channels, taps, weight), bias, saved, lane_taps,
                     document_starts(ctx, lanes, tokens, resets)};
  const long partial_floats = (taps + 1) * (long)channels;
  float* partial = shared_scratch(ctx, kSlotPartial, (tasks + 1) * partial_floats);
#pragma omp parallel num_threads(ctx->threads) if (worth_threads(ctx, (double)lanes * tokens * channels))
  {
#pragma omp for
    for (long task = 0; task < tasks; task++) {
      long b = task / blocks, first = task % blocks * kConvRows;
      float* d_w = partial + task * partial_floats;
      float* d_b = d_w + taps * (long)channels;
      memset(d_w, 0, (size_t)partial_floats * 4);
      for (long t = first; t < min_long(first + kConvRows, tokens); t++) {
        const float* rows[kMaxTaps];
        conv.sources(b, t, rows);
        float* g = d_out + (b * tokens + t) * channels;
        for (long c = 0; c < channels; c += kWidth) {
          long live = channels - c;
          Vec x = conv.at(rows, c), s = sigmoid(x);
          Vec dx = load_part(g + c, live) * (s * (1.f + x * (1.f - s)));
          store_part(g + c, live, dx);
          store_part(d_b + c, live, load_part(d_b + c, live) + dx);
          for (long k = 0; k < taps; k++) {
            if (rows[k]) store_part(d_w + k * channels + c, live, load_part(d_w + k * channels + c, live) + dx * load_part(rows[k] + c, live));
          }
        }
      }
    }
#pragma omp for
    for (long task = 0; task < tasks; task++) {
      long b = task / blocks, first = task % blocks * kConvRows;
      for (long t = first; t < min_long(first + kConvRows, tokens); t++) {
        // Tap k of token t + taps - 1 - k reads this row.
        const float* readers[kMaxTaps];
        for (long k = 0; k < taps; k++) {
          long reader = t + carried - k;
          bool reads = reader < tokens && t >= conv.since[b * tokens + reader];
          readers[k] = reads ? d_out + (b * tokens + reader) * channels : nullptr;
        }
        float* to = d_raw + (b * tokens + t) * d_stride;
        for (long c = 0; c < channels; c += kWidth) {
          long live = channels - c;
          Vec sum = {};
          for (long k = 0; k < taps; k++) {
            if (readers[k]) sum += load_part(conv.by_tap + k * channels + c, live) * load_part(readers[k] + c, live);
          }
          store_part(to + c, live, sum);
        }
      }
    }
  }
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

SEGUE_API void SEGUE_NAME(time_steps)(Context* ctx, int rows, int heads, float min, float max, const float* raw, int stride, const float* bias,
                                      float* dt) {
  using namespace SEGUE_VARIANT;
#pragma omp parallel for num_threads(ctx->threads) if (worth_threads(ctx, 8.0 * rows * heads))
  for (long r = 0; r < rows; r++) {
    for (long h = 0; h < heads; h += kWidth) {
      long live = heads - h;
      Vec x = softplus(load_part(raw + r * stride + h, live) + load_part(bias + h, live));
      store_part(dt + r * heads + h, live, at_most(at_least(x, min), max));
    }
  }
}

SEGUE_API void SEGUE_NAME(time_steps_backward)(Context* ctx, int rows, int heads, float min, float max, const float* raw, int stride,
                                               const float* bias, const float* d_dt, float* d_raw, int d_stride, float* d_bias) {
  using namespace SEGUE_VARIANT;
  float* partial = shared_scratch(ctx, kSlotPartial, (long)kBlocks * heads);
  const bool clamped = min > 0.f || max < INFINITY;
#pragma omp parallel for num_threads(ctx->threads) if (worth_threads(ctx, 8.0 * rows * heads)) schedule(static, 1)
  for (int block = 0; block < kBlocks; block++) {
    float* sum = partial + (long)block * heads;
    memset(sum, 0, (size_t)heads * 4);
    long first, end;
    rows_of_block(rows, block, &first, &end);
    for (long r = first; r < end; r++) {
      for (long h = 0; h < heads; h += kWidth) {
        long live = heads - h;
        Vec x = load_part(raw + r * stride + h, live) + load_part(bias + h, live);
        Vec slope = x > splat(20.f) ? splat(1.f) : sigmoid(x);
        if (clamped) {
          Vec dt = softplus(x);
          slope = dt < splat(min) ? Vec{} : slope;
          slope = dt > splat(max) ? Vec{} : slope;
        }
        Vec dx = load_part(d_dt + r * heads + h, live) * slope;
        store_part(d_raw + r * d_stride + h, live, dx);
        store_part(sum + h, live, load_part(sum + h, live) + dx);
      }
    }
  }
  sum_blocks(partial, kBlocks, heads, d_bias);
}

SEGUE_API void SEGUE_NAME(gated_norm)(Context* ctx, int rows, int width, int group_width, int norm_before_gate, float eps, const float* y,
                                      const float* gate, int stride, const float* weight, float* out, float* inverse_rms) {
  using namespace SEGUE_VARIANT;
  const long groups = width / group_width;
#pragma omp parallel for num_threads(ctx->threads) if (worth_threads(ctx, (double)rows * width))
  for (long r = 0; r < rows; r++) {
    for (long g = 0; g < groups; g++) {
      const float *yr = y + r * width + g * group_width, *z = gate + r * stride + g * group_width, *w = weight + g * group_width;
      float* o = out + r * width + g * group_width;
      Vec squares = {};
      for (long i = 0; i < group_width; i += kWidth) {
        long live = group_width - i;
        Vec v = load_part(yr + i, live);
        if (!norm_before_gate) {
          Vec zv = load_part(z + i, live);
          v *= zv * sigmoid(zv);
          store_part(o + i, live, v);
        }
        squares += v * v;
      }
      float inverse = 1.f / sqrtf(sum_lanes(squares) / group_width + eps);
      inverse_rms[r * groups + g] = inverse;
      for (long i = 0; i < group_width; i += kWidth) {
        long live = group_width - i;
        Vec v = load_part(norm_before_gate ? yr + i : o + i, live) * inverse * load_part(w + i, live);
        if (norm_before_gate) {
          Vec zv = load_part(z + i, live);
          v *= zv * sigmoid(zv);
        }
        store_part(o + i, live, v);
      }
    }
  }
}

// d_y may be d_out.
SEGUE_API void SEGUE_NAME(gated_norm_backward)(Context* ctx, int rows, int width, int group_width, int norm_before_gate, const float* y,
                                               const float* gate, int stride, const float* weight, const float* inverse_rms,
                                               const float* d_out, float* d_y, float* d_gate, int d_stride, float* d_weight, float* out) {
  using namespace SEGUE_VARIANT;
  const long groups = width / group_width;
  float* partial = shared_scratch(ctx, kSlotPartial, (long)kBlocks * width);
#pragma omp parallel for num_threads(ctx->threads) if (worth_threads(ctx, (double)rows * width)) schedule(static, 1)
  for (int block = 0; block < kBlocks; block++) {
    float* d_w = partial + (long)block * width;
    memset(d_w, 0, (size_t)width * 4);
    float* sigmoids = my_scratch(ctx, kSlotRow, round_up(group_width, kWidth));
    long first, end;
    rows_of_block(rows, block, &first, &end);
    for (long r = first; r < end; r++) {
      for (long g = 0; g < groups; g++) {
        const long at = r * width + g * group_width, column = g * group_width;
        const float *z = gate + r * stride + column, *w = weight + column;
        float inverse = inverse_rms[r * groups + g];
        // What was normed is y * silu(z) or y; what its gradient meets is 1 or silu(z).
        Vec dots = {};
        for (long i = 0; i < group_width; i += kWidth) {
          long live = group_width - i;
          Vec zv = load_part(z + i, live), s = sigmoid(zv);
          store(sigmoids + i, s);
          dots += load_part(y + at + i, live) * (zv * s) * load_part(d_out + at + i, live) * load_part(w + i, live);
        }
        float mean = sum_lanes(dots) * inverse * inverse * inverse / group_width;
        for (long i = 0; i < group_width; i += kWidth) {
          long live = group_width - i;
          Vec zv = load_part(z + i, live), s = load(sigmoids + i), yv = load_part(y + at + i, live), wv = load_part(w + i, live);
          Vec go = load_part(d_out + at + i, live);
          Vec gating = zv * s, slope = s * (1.f + zv * (1.f - s));
          Vec x = norm_before_gate ? yv : yv * gating;
          Vec normed = x * inverse;
          Vec after = norm_before_gate ? gating : splat(1.f);
          Vec dx = go * after * wv * inverse - x * mean;
          Vec dz = norm_before_gate ? go * normed * wv * slope : dx * yv * slope;
          store_part(d_w + column + i, live, load_part(d_w + column + i, live) + go * normed * after);
          store_part(out + at + i, live, normed * wv * after);
          store_part(d_gate + r * d_stride + column + i, live, dz);
          store_part(d_y + at + i, live, norm_before_gate ? dx : dx * gating);
        }
      }
    }
  }
  sum_blocks(partial, kBlocks, width, d_weight);
}
