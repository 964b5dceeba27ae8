// Backward pass of the scan.
#pragma once
#include "scan-chunk.h"

namespace SEGUE_VARIANT {

// What the chunk's outputs say about the state before it: sum_t exp(cs_t) dy_t (outer) C_t.
static void local_state_gradients(const Scan& s, long task, const float* d_y, float* d_states, float* whole) {
  Chunk k = make_chunk(s, task);
  Cutter memory = {my_scratch(s.ctx, kSlotScan, decay_floats(s, k.q) + k.q * s.wide + 16)};
  Decays* decays = cut_decays(s, memory, k.q);
  float* weighted = memory.take(k.q * s.wide);
  for (long group = 0; group < s.groups; group++) {
    group_decays(s, task, group, decays);
    for (long i = 0; i < s.heads_per_group; i++) whole[group * s.heads_per_group + i] = decays[i].whole;
    scale_rows(s, k.q, d_y + k.row * s.inner + group * s.group_width, s.inner, decays, &Decays::from_start, weighted);
    small_product(s.ctx, s.group_width, s.state, k.q, {weighted, 1, s.wide},
                  {s.xbc + k.row * s.channels + s.c_column(group), s.channels, 1}, d_states + group * s.group_width * s.state,
                  s.state);
  }
}

// Replaces the local gradients by the gradient of the state after each chunk; `outside` enters as that of the final state (null:
// zero) and leaves as that of the initial one.
static void pass_state_gradients(const Scan& s, long lane, long head, float* d_states, const float* whole, float* outside) {
  long floats = s.head_dim * s.state;
  for (long i = 0; i < floats; i += kWidth) {
    long live = floats - i;
    Vec after = outside ? load_part(outside + i, live) : Vec{};
    for (long chunk = s.chunks - 1; chunk >= 0; chunk--) {
      float* slot = d_states + ((lane * s.chunks + chunk) * s.heads + head) * floats + i;
      Vec local = load_part(slot, live);
      store_part(slot, live, after);
      after = after * whole[(lane * s.chunks + chunk) * s.heads + head] + local;
    }
    if (outside) store_part(outside + i, live, after);
  }
}

struct ScanGradients {
  const float* d_y;
  float *d_xbc, *d_dt;
  // Per task and head: gradient of A, then of the skip.
  float* sums;
};

// Everything else: gradients of x, B, C, dt, and this chunk's share of those of A and D. With x'_s = dt_s x_s, u_s is the gradient
// of x'_s. The gradient of dt_t A is the sum of what passes the decay at t: from tokens before t to t and later ones (across), from
// the state before the chunk to t and later ones, from tokens before t to the state after the chunk, and from state to state. As the
// sum of the gradients of cs over the tokens from t on it would be a small difference of large sums.
static void chunk_gradients(const Scan& s, long task, const float* states, const float* d_states, const ScanGradients& out) {
  Chunk k = make_chunk(s, task);
  long square = k.rows * k.rows, head_block = k.rows * k.head_cols, state_block = k.rows * k.state_cols, wide = k.q * s.wide;
  Cutter memory = {my_scratch(
      s.ctx, kSlotScan,
      decay_floats(s, k.q) + 4 * square + 3 * head_block + 3 * state_block + s.state * k.rows + 4 * wide + 6 * k.rows + 16 * 24)};
  Decays* decays = cut_decays(s, memory, k.q);
  float *g = memory.take(square), *m = memory.take(square), *d_m = memory.take(square), *d_g = memory.take(square);
  float *x_transposed = memory.take(head_block), *dy = memory.take(head_block), *u = memory.take(head_block);
  float *b = memory.take(state_block), *c = memory.take(state_block), *product = memory.take(state_block);
  float* b_transposed = memory.take(s.state * k.rows);
  float *dy_decayed = memory.take(wide), *x_decayed = memory.take(wide), *carried = memory.take(wide), *w = memory.take(wide);
  float *across = memory.take(k.rows), *from_on = memory.take(k.rows), *direct = memory.take(k.rows),
        *before_block = memory.take(k.rows), *from_state = memory.take(k.rows), *to_state = memory.take(k.rows);

  for (long group = 0; group < s.groups; group++) {
    const float *bs = s.xbc + k.row * s.channels + s.b_column(group), *cs = s.xbc + k.row * s.channels + s.c_column(group);
    float *d_b = out.d_xbc + k.row * s.channels + s.b_column(group), *d_c = out.d_xbc + k.row * s.channels + s.c_column(group);
    const float* before = states + group * s.group_width * s.state;
    const float* d_after = d_states + group * s.group_width * s.state;
    copy_padded(bs, s.channels, k.q, s.state, b, k.rows, k.state_cols);
    copy_padded(cs, s.channels, k.q, s.state, c, k.rows, k.state_cols);
    copy_transposed(bs, s.channels, k.q, s.state, b_transposed, k.rows);
    lower_product(k, s.state, c, k.state_cols, b_transposed, g);
    memset(d_g, 0, (size_t)square * 4);

    group_decays(s, task, group, decays);
    scale_rows(s, k.q, out.d_y + k.row * s.inner + group * s.group_width, s.inner, decays, &Decays::from_start, dy_decayed);
    scale_rows(s, k.q, s.x(k.row, group * s.heads_per_group), s.channels, decays, &Decays::dt_to_end, x_decayed);
    // All heads of the group at once: what passes through the states before and after the chunk.
    small_product(s.ctx, k.q, s.state, s.group_width, {dy_decayed, s.wide, 1}, {before, s.state, 1}, d_c, s.channels);
    gemm(s.ctx, k.q, s.group_width, s.state, {cs, s.channels, 1}, {before, 1, s.state}, carried, s.wide, false);
    gemm(s.ctx, k.q, s.group_width, s.state, {bs, s.channels, 1}, {d_after, 1, s.state}, w, s.wide, false);
    small_product(s.ctx, k.q, s.state, s.group_width, {x_decayed, s.wide, 1}, {d_after, s.state, 1}, d_b, s.channels);

    for (long i = 0; i < s.heads_per_group; i++) {
      long head = group * s.heads_per_group + i;
      const float *xs = s.x(k.row, head), *dys = out.d_y + k.row * s.inner + head * s.head_dim;
      float* d_x = out.d_xbc + k.row * s.channels + head * s.head_dim;
      const Decays& d = decays[i];
      copy_padded(dys, s.inner, k.q, s.head_dim, dy, k.rows, k.head_cols);
      copy_transposed(xs, s.channels, k.q, s.head_dim, x_transposed, k.rows);
      for (long p = 0; p < s.head_dim; p++) {
        for (long t = 0; t < k.rows; t += kWidth)
          store(x_transposed + p * k.rows + t, load(x_transposed + p * k.rows + t) * load(d.dt + t));
      }
      lower_product(k, s.head_dim, dy, k.head_cols, x_transposed, d_m);
      DecayRows decay_rows(d, before_block);
      for (long t = 0; t < k.q; t++) {
        decay_rows.start_row(t);
        for (long j = 0; j <= t; j += kWidth) {
          Vec decay = decay_rows.at(t, j), gradient = load(d_m + t * k.rows + j), value = decay * load(g + t * k.rows + j);
          store(m + t * k.rows + j, value);
          store(d_g + t * k.rows + j, load(d_g + t * k.rows + j) + gradient * decay);
        }
      }
      // from_on[j]: what passes from token j to the tokens from t on.
      memset(from_on, 0, (size_t)k.rows * 4);
      for (long t = k.q - 1; t >= 0; t--) {
        Vec passing = {};
        for (long j = 0; j <= t; j += kWidth) {
          Vec sum = load(from_on + j) + load(d_m + t * k.rows + j) * load(m + t * k.rows + j);
          store(from_on + j, sum);
          passing += j + kWidth <= t ? sum : keep_lanes(sum, 0, (int)(t - j));
        }
        across[t] = sum_lanes(passing);
      }
      apply_lower_transposed(k, m, dy, k.head_cols, u);

      double inserted = 0;
      Vec to_skip = {};
      for (long t = 0; t < k.q; t++) {
        const long at = t * s.wide + i * s.head_dim;
        Vec through_start = {}, through_end = {}, to_dt = {};
        for (long p = 0; p < s.head_dim; p += kWidth) {
          long live = s.head_dim - p;
          Vec xv = load_part(xs + t * s.channels + p, live), dyv = load(dy + t * k.head_cols + p), wv = load_part(w + at + p, live);
          Vec uv = load(u + t * k.head_cols + p) + wv * d.to_end[t];
          through_start += load_part(dy_decayed + at + p, live) * load_part(carried + at + p, live);
          through_end += xv * wv;
          to_dt += xv * uv;
          to_skip += xv * dyv;
          store_part(d_x + t * s.channels + p, live, uv * d.dt[t] + dyv * s.skip[head]);
        }
        from_state[t] = sum_lanes(through_start);
        to_state[t] = (float)inserted;
        inserted += sum_lanes(through_end) * d.dt_to_end[t];
        direct[t] = sum_lanes(to_dt);
      }
      long head_floats = s.head_dim * s.state;
      double past = d.whole * dot(before + i * head_floats, d_after + i * head_floats, head_floats);

      double a = -exp((double)s.a_log[head]), later = 0, d_a = 0;
      for (long t = k.q - 1; t >= 0; t--) {
        later += from_state[t];
        // Nothing passes a document start.
        double passing = d.first[t] == t ? 0 : across[t] + later + to_state[t] + past;
        out.d_dt[(k.row + t) * s.heads + head] = (float)(direct[t] + passing * a);
        d_a += passing * d.dt[t];
      }
      float* sums = out.sums + task * 2 * s.heads;
      sums[head] = (float)(d_a * a);
      sums[s.heads + head] = sum_lanes(to_skip);
    }

    apply_lower(k, d_g, b, k.state_cols, product);
    for (long t = 0; t < k.q; t++) {
      for (long n = 0; n < s.state; n += kWidth) {
        float* to = d_c + t * s.channels + n;
        store_part(to, s.state - n, load_part(to, s.state - n) + load(product + t * k.state_cols + n));
      }
    }
    apply_lower_transposed(k, d_g, c, k.state_cols, product);
    for (long t = 0; t < k.q; t++) {
      for (long n = 0; n < s.state; n += kWidth) {
        float* to = d_b + t * s.channels + n;
        store_part(to, s.state - n, load_part(to, s.state - n) + load(product + t * k.state_cols + n));
      }
    }
  }
}

}  // namespace SEGUE_VARIANT

SEGUE_API void SEGUE_NAME(scan_backward)(Context* ctx, int lanes, int tokens, int heads, int head_dim, int state_size, int groups,
                                         int chunk, const int* resets, const float* xbc, const float* dt, const float* a_log,
                                         const float* skip, const float* chunk_states, const float* d_y, float* d_xbc, float* d_dt,
                                         float* d_a_log, float* d_skip, float* d_chunk_states, float* d_state,
                                         double d_state_stride) {
  using namespace SEGUE_VARIANT;
  const Scan s = make_scan(ctx, lanes, tokens, heads, head_dim, state_size, groups, chunk, resets, xbc, dt, a_log, skip);
  const long tasks = s.tasks(), head_floats = s.head_dim * s.state;
  float* whole = shared_scratch(ctx, kSlotTasks, tasks * s.heads * 3 + 2 * s.heads);
  float *sums = whole + tasks * s.heads, *total = sums + 2 * tasks * s.heads;
  const ScanGradients out = {d_y, d_xbc, d_dt, sums};
  const double floats = (double)s.lanes * s.tokens * s.inner;
  parallel_for(ctx, floats, tasks, [&](long task) {
    local_state_gradients(s, task, d_y, d_chunk_states + task * s.lane_floats, whole + task * s.heads);
  });
  parallel_for(ctx, floats, s.lanes * s.heads, [&](long unit) {
    long lane = unit / s.heads, head = unit % s.heads;
    pass_state_gradients(s, lane, head, d_chunk_states, whole,
                         d_state ? d_state + lane * (long)d_state_stride + head * head_floats : nullptr);
  });
  parallel_for(ctx, floats, tasks, [&](long task) {
    chunk_gradients(s, task, chunk_states + task * s.lane_floats, d_chunk_states + task * s.lane_floats, out);
  });
  sum_blocks(sums, tasks, 2 * s.heads, total);
  memcpy(d_a_log, total, (size_t)s.heads * 4);
  memcpy(d_skip, total + s.heads, (size_t)s.heads * 4);
}
