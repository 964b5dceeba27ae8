// Forward pass of the scan.
#pragma once
#include "scan-chunk.h"
#include "scan-step.h"

namespace SEGUE_VARIANT {

// Z [group, head_dim, state] of one chunk: what its tokens add to the state at its end. Also notes each head's decay over the
// chunk.
static void local_states(const Scan& s, long task, float* z, float* whole) {
  Chunk k = make_chunk(s, task);
  Cutter memory = {my_scratch(s.ctx, kSlotScan, decay_floats(s, k.q) + k.q * s.wide + 16)};
  Decays* decays = cut_decays(s, memory, k.q);
  float* weighted = memory.take(k.q * s.wide);
  for (long group = 0; group < s.groups; group++) {
    group_decays(s, task, group, decays);
    for (long i = 0; i < s.heads_per_group; i++) whole[group * s.heads_per_group + i] = decays[i].whole;
    scale_rows(s, k.q, s.x(k.row, group * s.heads_per_group), s.channels, decays, &Decays::dt_to_end, weighted);
    small_product(s.ctx, s.group_width, s.state, k.q, {weighted, 1, s.wide},
                  {s.xbc + k.row * s.channels + s.b_column(group), s.channels, 1}, z + group * s.group_width * s.state, s.state);
  }
}

// Replaces what each chunk adds by the state before it; `state` enters as the first and leaves as the last.
static void pass_states(const Scan& s, long lane, long head, float* chunk_states, const float* whole, float* state) {
  long floats = s.head_dim * s.state;
  for (long chunk = 0; chunk < s.chunks; chunk++) {
    float* slot = chunk_states + ((lane * s.chunks + chunk) * s.heads + head) * floats;
    float decay = whole[(lane * s.chunks + chunk) * s.heads + head];
    for (long i = 0; i < floats; i += kWidth) {
      long live = floats - i;
      Vec added = load_part(slot + i, live), before = load_part(state + i, live);
      store_part(slot + i, live, before);
      store_part(state + i, live, before * decay + added);
    }
  }
}

static void chunk_outputs(const Scan& s, long task, const float* states, float* y) {
  Chunk k = make_chunk(s, task);
  long square = k.rows * k.rows, head_block = k.rows * k.head_cols, state_block = k.rows * k.state_cols;
  Cutter memory = {my_scratch(
      s.ctx, kSlotScan,
      decay_floats(s, k.q) + 2 * (square + head_block) + state_block + s.state * k.rows + k.q * s.wide + k.rows + 16 * 9)};
  Decays* decays = cut_decays(s, memory, k.q);
  float *g = memory.take(square), *m = memory.take(square), *x = memory.take(head_block), *within = memory.take(head_block);
  float *c = memory.take(state_block), *b_transposed = memory.take(s.state * k.rows), *carried = memory.take(k.q * s.wide);
  float* before_block = memory.take(k.rows);
  for (long group = 0; group < s.groups; group++) {
    const float *bs = s.xbc + k.row * s.channels + s.b_column(group), *cs = s.xbc + k.row * s.channels + s.c_column(group);
    copy_padded(cs, s.channels, k.q, s.state, c, k.rows, k.state_cols);
    copy_transposed(bs, s.channels, k.q, s.state, b_transposed, k.rows);
    lower_product(k, s.state, c, k.state_cols, b_transposed, g);
    gemm(s.ctx, k.q, s.group_width, s.state, {cs, s.channels, 1}, {states + group * s.group_width * s.state, 1, s.state}, carried,
         s.wide, false);
    group_decays(s, task, group, decays);
    for (long i = 0; i < s.heads_per_group; i++) {
      long head = group * s.heads_per_group + i;
      const Decays& d = decays[i];
      DecayRows decay(d, before_block);
      for (long t = 0; t < k.q; t++) {
        decay.start_row(t);
        for (long j = 0; j <= t; j += kWidth) store(m + t * k.rows + j, decay.at(t, j) * load(g + t * k.rows + j));
      }
      const float* xs = s.x(k.row, head);
      copy_padded(xs, s.channels, k.q, s.head_dim, x, k.rows, k.head_cols);
      for (long t = 0; t < k.q; t++) {
        for (long p = 0; p < k.head_cols; p += kWidth) store(x + t * k.head_cols + p, load(x + t * k.head_cols + p) * d.dt[t]);
      }
      apply_lower(k, m, x, k.head_cols, within);
      for (long t = 0; t < k.q; t++) {
        for (long p = 0; p < s.head_dim; p += kWidth) {
          long live = s.head_dim - p;
          Vec out =
              load(within + t * k.head_cols + p) + load_part(carried + t * s.wide + i * s.head_dim + p, live) * d.from_start[t];
          store_part(y + (k.row + t) * s.inner + head * s.head_dim + p, live,
                     out + load_part(xs + t * s.channels + p, live) * s.skip[head]);
        }
      }
    }
  }
}

}  // namespace SEGUE_VARIANT

SEGUE_API void SEGUE_NAME(scan)(Context* ctx, int lanes, int tokens, int heads, int head_dim, int state_size, int groups, int chunk,
                                const int* resets, const float* xbc, const float* dt, const float* a_log, const float* skip,
                                double log_retention, float insertion, float* state, double state_stride, float* chunk_states,
                                float* y) {
  using namespace SEGUE_VARIANT;
  Scan s = make_scan(ctx, lanes, tokens, heads, head_dim, state_size, groups, chunk, resets, xbc, dt, a_log, skip);
  s.log_retention = log_retention, s.insertion = insertion;
  if (tokens == 1) return scan_step(s, resets, state, (long)state_stride, chunk_states, y);
  const long tasks = s.tasks(), head_floats = s.head_dim * s.state;
  float* whole = shared_scratch(ctx, kSlotTasks, tasks * s.heads);
  const double floats = (double)s.lanes * s.tokens * s.inner;
  parallel_for(ctx, floats, tasks,
               [&](long task) { local_states(s, task, chunk_states + task * s.lane_floats, whole + task * s.heads); });
  parallel_for(ctx, floats, s.lanes * s.heads, [&](long unit) {
    long lane = unit / s.heads, head = unit % s.heads;
    pass_states(s, lane, head, chunk_states, whole, state + lane * (long)state_stride + head * head_floats);
  });
  parallel_for(ctx, floats, tasks, [&](long task) { chunk_outputs(s, task, chunk_states + task * s.lane_floats, y); });
}
