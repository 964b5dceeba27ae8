// The scan over a single token, as in decoding: h = exp(dt A) h + dt x (outer) B; y = h C + D x, without chunks.
#pragma once
#include "scan.h"

namespace SEGUE_VARIANT {

// One head of one lane. `state` [head_dim, state] advances; what it was is left in `before`.
static void step_head(const Scan& s, long lane, long head, bool reset, float* state, float* before, float* y) {
  const float* row = s.xbc + lane * s.channels;
  const float *x = row + head * s.head_dim, *b = row + s.b_column(head / s.heads_per_group),
              *c = row + s.c_column(head / s.heads_per_group);
  const float dt = s.dt[lane * s.heads + head];
  const float decay = reset ? 0.f : exp_vec(splat((float)(-exp((double)s.a_log[head]) * dt + s.log_retention)))[0];
  for (long p = 0; p < s.head_dim; p++) {
    const float added = dt * s.insertion * x[p];
    Vec sum = {};
    for (long n = 0; n < s.state; n += kWidth) {
      long live = s.state - n, at = p * s.state + n;
      Vec h = load_part(state + at, live);
      store_part(before + at, live, h);
      h = h * decay + load_part(b + n, live) * added;
      store_part(state + at, live, h);
      sum += h * load_part(c + n, live);
    }
    y[p] = sum_lanes(sum) + s.skip[head] * x[p];
  }
}

static void scan_step(const Scan& s, const int* resets, float* state, long state_stride, float* before, float* y) {
  const long head_floats = s.head_dim * s.state;
  parallel_for(s.ctx, (double)s.lanes * s.lane_floats, s.lanes * s.heads, [&](long unit) {
    long lane = unit / s.heads, head = unit % s.heads;
    step_head(s, lane, head, resets && resets[lane], state + lane * state_stride + head * head_floats, before + unit * head_floats,
              y + unit * s.head_dim);
  });
}

}  // namespace SEGUE_VARIANT
