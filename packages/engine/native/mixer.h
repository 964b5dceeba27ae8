// What else stands around the scan in a Mamba-2 block: time steps, gated norm. Formulas: src/devices/reference/mixer.ts.
#pragma once
#include "conv.h"

SEGUE_API void SEGUE_NAME(time_steps)(Context* ctx, int rows, int heads, float min, float max, const float* raw, int stride,
                                      const float* bias, float scale, float* dt) {
  using namespace SEGUE_VARIANT;
  parallel_rows(ctx, rows, 8.0 * heads, [=](long first, long end) {
    for (long r = first; r < end; r++) {
      for (long h = 0; h < heads; h += kWidth) {
        long live = heads - h;
        Vec x = softplus(load_part(raw + r * stride + h, live) + load_part(bias + h, live));
        store_part(dt + r * heads + h, live, at_most(at_least(x, min), max) * scale);
      }
    }
  });
}

SEGUE_API void SEGUE_NAME(time_steps_backward)(Context* ctx, int rows, int heads, float min, float max, const float* raw,
                                               int stride, const float* bias, const float* d_dt, float* d_raw, int d_stride,
                                               float* d_bias) {
  using namespace SEGUE_VARIANT;
  float* partial = shared_scratch(ctx, kSlotPartial, (long)kBlocks * heads);
  const bool clamped = min > 0.f || max < INFINITY;
  parallel_for(ctx, 8.0 * rows * heads, kBlocks, [=](long block) {
    float* sum = partial + block * heads;
    memset(sum, 0, (size_t)heads * 4);
    long first, end;
    rows_of_block(rows, (int)block, &first, &end);
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
  });
  sum_blocks(partial, kBlocks, heads, d_bias);
}

SEGUE_API void SEGUE_NAME(gated_norm)(Context* ctx, int rows, int width, int group_width, int norm_before_gate, float eps,
                                      const float* y, const float* gate, int stride, const float* weight, float* out,
                                      float* inverse_rms) {
  using namespace SEGUE_VARIANT;
  const long groups = width / group_width;
  parallel_rows(ctx, rows, width, [=](long first, long end) {
    for (long r = first; r < end; r++) {
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
  });
}

// d_y may be d_out.
SEGUE_API void SEGUE_NAME(gated_norm_backward)(Context* ctx, int rows, int width, int group_width, int norm_before_gate,
                                               const float* y, const float* gate, int stride, const float* weight,
                                               const float* inverse_rms, const float* d_out, float* d_y, float* d_gate,
                                               int d_stride, float* d_weight, float* out) {
  using namespace SEGUE_VARIANT;
  const long groups = width / group_width;
  float* partial = shared_scratch(ctx, kSlotPartial, (long)kBlocks * width);
  parallel_for(ctx, (double)rows * width, kBlocks, [=](long block) {
    float* d_w = partial + block * width;
    memset(d_w, 0, (size_t)width * 4);
    float* sigmoids = my_scratch(ctx, kSlotRow, round_up(group_width, kWidth));
    long first, end;
    rows_of_block(rows, (int)block, &first, &end);
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
  });
  sum_blocks(partial, kBlocks, width, d_weight);
}
