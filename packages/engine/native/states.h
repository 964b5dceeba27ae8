// Statistics of activations and work on whole states, for inference. Formulas: src/devices/reference/states.ts.
#pragma once
#include "mixer.h"

SEGUE_API void SEGUE_NAME(lane_sums)(Context* ctx, int lanes, int tokens, const float* columns, int stride, int groups, int width,
                                     int squared, float* out, double out_stride) {
  using namespace SEGUE_VARIANT;
  parallel_for(ctx, (double)lanes * tokens * groups * width, (long)lanes * groups, [=](long unit) {
    const long lane = unit / groups, group = unit % groups;
    double sum = 0;
    for (long t = 0; t < tokens; t++) {
      const float* x = columns + (lane * tokens + t) * stride + group * width;
      for (long i = 0; i < width; i++) sum += squared ? (double)x[i] * x[i] : x[i];
    }
    out[lane * (long)out_stride + group] = (float)sum;
  });
}

SEGUE_API void SEGUE_NAME(mix_heads)(Context* ctx, int lanes, int heads, int size, const float* factors, const float* from,
                                     double from_stride, float* state, double state_stride, int accumulate) {
  using namespace SEGUE_VARIANT;
  parallel_for(ctx, (double)lanes * heads * size, (long)lanes * heads, [=](long unit) {
    const long lane = unit / heads, first = unit % heads * size;
    const float* in = from + lane * (long)from_stride + first;
    float* to = state + lane * (long)state_stride + first;
    for (long i = 0; i < size; i += kWidth) {
      const long live = size - i;
      const Vec added = load_part(in + i, live) * factors[unit];
      store_part(to + i, live, accumulate ? load_part(to + i, live) + added : added);
    }
  });
}
