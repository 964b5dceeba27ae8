// Rows of tables, norms, the loss, the optimizer. Formulas: src/devices/reference/dense.ts.
#pragma once
#include "matmul.h"

namespace SEGUE_VARIANT {

constexpr int kSlotPartial = 2, kSlotLogits = 3;

// Elements per block of operations on flat vectors.
// SLICE_BLOCK_FLOATS of @segue/core.
constexpr long kFlatBlock = 16384;

static inline float dot(const float* a, const float* b, long n) {
  Vec sum = {};
  for (long i = 0; i < n; i += kWidth) sum += load_part(a + i, n - i) * load_part(b + i, n - i);
  return sum_lanes(sum);
}

// Turns a row of logits into its softmax times `weight`, less `weight` at the label.
// Returns the cross-entropy; `wanted` false: leaves the row undefined.
static inline float softmax_row(float* logits, long vocab, int label, float weight, bool wanted) {
  Vec largest = splat(-INFINITY);
  for (long v = 0; v < vocab; v += kWidth) {
    Vec x = load_part(logits + v, vocab - v);
    for (long i = vocab - v; i < kWidth; i++) x[i] = -INFINITY;
    largest = x > largest ? x : largest;
  }
  float top = largest[0];
  for (int i = 1; i < kWidth; i++) top = largest[i] > top ? largest[i] : top;
  float at_label = logits[label];
  Vec total = {};
  for (long v = 0; v < vocab; v += kWidth) {
    long live = vocab - v;
    Vec e = exp_vec(load_part(logits + v, live) - top);
    if (live < kWidth) e = keep_lanes(e, 0, (int)live);
    total += e;
    if (wanted) store_part(logits + v, live, e);
  }
  float sum = sum_lanes(total);
  if (wanted) {
    float scale = weight / sum;
    for (long v = 0; v < vocab; v += kWidth) store_part(logits + v, vocab - v, load_part(logits + v, vocab - v) * scale);
    logits[label] -= weight;
  }
  return logf(sum) + top - at_label;
}

}  // namespace SEGUE_VARIANT

SEGUE_API void SEGUE_NAME(gather_rows)(Context* ctx, int rows, int width, const float* table, const int* ids, float* out) {
  using namespace SEGUE_VARIANT;
  parallel_rows(ctx, rows, width, [=](long first, long end) {
    for (long r = first; r < end; r++) memcpy(out + r * width, table + (long)ids[r] * width, (size_t)width * 4);
  });
}

// Threads share the columns, so that each element is added in row order.
SEGUE_API void SEGUE_NAME(scatter_add_rows)(Context* ctx, int rows, int width, float* table, const int* ids, const float* in) {
  using namespace SEGUE_VARIANT;
  long part = round_up((width + ctx->threads - 1) / ctx->threads, kWidth);
  parallel_for(ctx, (double)rows * width, (width + part - 1) / part, [=](long i) {
    long first = i * part, end = min_long(first + part, width);
    for (long r = 0; r < rows; r++) {
      float* to = table + (long)ids[r] * width;
      for (long i = first; i < end; i += kWidth)
        store_part(to + i, end - i, load_part(to + i, end - i) + load_part(in + r * width + i, end - i));
    }
  });
}

SEGUE_API void SEGUE_NAME(add_norm)(Context* ctx, int rows, int width, float eps, const float* residual, const float* delta,
                                    const float* weight, float* sum, float* out, float* inverse_rms) {
  using namespace SEGUE_VARIANT;
  parallel_rows(ctx, rows, width, [=](long first, long end) {
    for (long r = first; r < end; r++) {
      const float* x = residual + r * width;
      const float* d = delta ? delta + r * width : nullptr;
      float* s = sum + r * width;
      Vec squares = {};
      for (long i = 0; i < width; i += kWidth) {
        long live = width - i;
        Vec v = load_part(x + i, live);
        if (d) v += load_part(d + i, live);
        squares += v * v;
        store_part(s + i, live, v);
      }
      float inverse = 1.f / sqrtf(sum_lanes(squares) / width + eps);
      inverse_rms[r] = inverse;
      for (long i = 0; i < width; i += kWidth) {
        long live = width - i;
        store_part(out + r * width + i, live, load_part(s + i, live) * inverse * load_part(weight + i, live));
      }
    }
  });
}

SEGUE_API void SEGUE_NAME(add_norm_backward)(Context* ctx, int rows, int width, const float* sum, const float* weight,
                                             const float* inverse_rms, const float* d_out, float* d_sum, int accumulate,
                                             float* d_weight, float* out) {
  using namespace SEGUE_VARIANT;
  float* partial = shared_scratch(ctx, kSlotPartial, (long)kBlocks * width);
  parallel_for(ctx, (double)rows * width, kBlocks, [=](long block) {
    float* d_w = partial + block * width;
    memset(d_w, 0, (size_t)width * 4);
    long first, end;
    rows_of_block(rows, (int)block, &first, &end);
    for (long r = first; r < end; r++) {
      const float *x = sum + r * width, *g = d_out + r * width;
      float inverse = inverse_rms[r];
      Vec dots = {};
      for (long i = 0; i < width; i += kWidth) {
        long live = width - i;
        dots += load_part(x + i, live) * load_part(weight + i, live) * load_part(g + i, live);
      }
      float mean = sum_lanes(dots) * inverse * inverse * inverse / width;
      for (long i = 0; i < width; i += kWidth) {
        long live = width - i;
        Vec xv = load_part(x + i, live), gv = load_part(g + i, live), wv = load_part(weight + i, live);
        Vec normed = xv * inverse;
        store_part(d_w + i, live, load_part(d_w + i, live) + gv * normed);
        Vec dx = gv * wv * inverse - xv * mean;
        if (accumulate) dx += load_part(d_sum + r * width + i, live);
        store_part(d_sum + r * width + i, live, dx);
        store_part(out + r * width + i, live, normed * wv);
      }
    }
  });
  sum_blocks(partial, kBlocks, width, d_weight);
}

// Logits exist for one slice of rows at a time: at most 32 MiB of them, or 64 rows of a vocabulary beyond 131,072. Slices of the
// vocabulary would bound memory as well, but a softmax needs the whole row first: every logit would be computed twice, a third more
// arithmetic. Slices of rows use theirs up at once; they pay with one more pass over d_table for each. Their length depends on the
// vocabulary alone, so the order of all sums is fixed.
SEGUE_API void SEGUE_NAME(head_loss)(Context* ctx, int rows, int width, int vocab, const float* hidden, const float* table,
                                     const int* labels, float* losses, const float* weights, float* d_hidden, float* d_table) {
  using namespace SEGUE_VARIANT;
  const long slice = max_long(64, min_long(512, (8l << 20) / vocab));
  float* logits = shared_scratch(ctx, kSlotLogits, min_long(slice, rows) * vocab);
  for (long first = 0; first < rows; first += slice) {
    long live = min_long(slice, rows - first);
    const float* h = hidden + first * width;
    parallel_gemm(ctx, live, vocab, width, {h, width, 1}, {table, 1, width}, logits, vocab, false);
    parallel_rows(ctx, live, vocab, [=](long begin, long end) {
      for (long r = begin; r < end; r++) {
        losses[first + r] =
            softmax_row(logits + r * vocab, vocab, labels[first + r], weights ? weights[first + r] : 0.f, weights != nullptr);
      }
    });
    if (!weights) continue;
    parallel_gemm(ctx, live, width, vocab, {logits, vocab, 1}, {table, width, 1}, d_hidden + first * width, width, false);
    parallel_gemm(ctx, vocab, width, live, {logits, 1, vocab}, {h, width, 1}, d_table, width, first > 0);
  }
}

SEGUE_API void SEGUE_NAME(add)(Context* ctx, double count, const float* addend, float* sum) {
  using namespace SEGUE_VARIANT;
  long n = (long)count, blocks = (n + kFlatBlock - 1) / kFlatBlock;
  parallel_for(ctx, (double)n, blocks, [=](long block) {
    long end = min_long((block + 1) * kFlatBlock, n);
    for (long i = block * kFlatBlock; i < end; i++) sum[i] += addend[i];
  });
}

// A double for each block: sums of slices that begin with a block are part of the whole's.
SEGUE_API void SEGUE_NAME(squares_of_blocks)(Context* ctx, double count, const float* x, float* out) {
  using namespace SEGUE_VARIANT;
  long n = (long)count, blocks = (n + kFlatBlock - 1) / kFlatBlock;
  double* partial = (double*)out;
  parallel_for(ctx, (double)n, blocks, [=](long block) {
    double lanes[8] = {};
    long first = block * kFlatBlock, end = min_long(first + kFlatBlock, n);
    for (long i = first; i < end; i++) lanes[(i - first) % 8] += (double)x[i] * x[i];
    partial[block] = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
  });
}

SEGUE_API double SEGUE_NAME(sum_of_squares)(Context* ctx, double count, const float* x) {
  using namespace SEGUE_VARIANT;
  long blocks = ((long)count + kFlatBlock - 1) / kFlatBlock;
  double* partial = (double*)shared_scratch(ctx, kSlotPartial, 2 * max_long(blocks, 1));
  SEGUE_NAME(squares_of_blocks)(ctx, count, x, (float*)partial);
  double sum = 0;
  for (long block = 0; block < blocks; block++) sum += partial[block];
  return sum;
}

SEGUE_API void SEGUE_NAME(adamw)(Context* ctx, double count, float* parameters, const float* gradient, float* first_moment,
                                 float* second_moment, double gradient_scale, double learning_rate, double beta1, double beta2,
                                 double epsilon, double weight_decay, int step) {
  using namespace SEGUE_VARIANT;
  long n = (long)count, blocks = (n + kFlatBlock - 1) / kFlatBlock;
  float scale = (float)gradient_scale, keep1 = (float)beta1, take1 = (float)(1 - beta1), keep2 = (float)beta2,
        take2 = (float)(1 - beta2);
  float correct1 = (float)(1 / (1 - pow(beta1, step))), correct2 = (float)(1 / (1 - pow(beta2, step)));
  float rate = (float)learning_rate, eps = (float)epsilon, shrink = (float)(learning_rate * weight_decay);
  parallel_for(ctx, (double)n, blocks, [=](long block) {
    long end = min_long((block + 1) * kFlatBlock, n);
    for (long i = block * kFlatBlock; i < end; i++) {
      float g = gradient[i] * scale;
      float m = keep1 * first_moment[i] + take1 * g;
      float v = keep2 * second_moment[i] + take2 * g * g;
      first_moment[i] = m;
      second_moment[i] = v;
      float update = m * correct1 / (sqrtf(v * correct2) + eps);
      parameters[i] = parameters[i] - rate * update - shrink * parameters[i];
    }
  });
}

SEGUE_API void SEGUE_NAME(state_statistics)(Context* ctx, int lanes, int heads, int size, const float* state, double stride,
                                            float* out) {
  using namespace SEGUE_VARIANT;
  parallel_for(ctx, (double)lanes * heads * size, (long)lanes * heads, [=](long unit) {
    const float* x = state + unit / heads * (long)stride + unit % heads * size;
    double sum = 0, squares = 0, spread = 0;
    float largest = 0;
    for (long i = 0; i < size; i++) {
      sum += x[i];
      squares += (double)x[i] * x[i];
      largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
    }
    double mean = sum / size;
    for (long i = 0; i < size; i++) spread += (x[i] - mean) * (x[i] - mean);
    out[unit * 4] = (float)mean;
    out[unit * 4 + 1] = (float)(spread / (size - 1));
    out[unit * 4 + 2] = (float)sqrt(squares / size);
    out[unit * 4 + 3] = largest;
  });
}
