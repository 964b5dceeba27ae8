// Operands of one chunk of the scan, and products with its triangular matrices.
#pragma once
#include "scan-decays.h"

namespace SEGUE_VARIANT {

// Padded extents of one chunk of q tokens, and the chunk's place.
struct Chunk {
  long q, row, rows, head_cols, state_cols;
};

static inline Chunk make_chunk(const Scan& s, long task) {
  long q = s.length(task);
  return {q, s.first_row(task), round_up(q, kWidth), round_up(s.head_dim, kWidth), round_up(s.state, kWidth)};
}

// out [rows, cols] = in [q, width] with rows `stride` apart, zeros around.
static inline void copy_padded(const float* in, long stride, long q, long width, float* out, long rows, long cols) {
  for (long t = 0; t < q; t++) {
    for (long i = 0; i < cols; i += kWidth) store(out + t * cols + i, load_part(in + t * stride + i, width - i));
  }
  memset(out + q * cols, 0, (size_t)((rows - q) * cols) * 4);
}

// out [width, cols] = in [q, width] transposed, zeros behind.
static inline void copy_transposed(const float* in, long stride, long q, long width, float* out, long cols) {
  long t = 0;
  for (; t + 4 <= q; t += 4) {
    long i = 0;
    for (; i + 4 <= width; i += 4) transpose_quads(in + t * stride + i, stride, out + i * cols + t, cols);
    for (; i < width; i++) {
      for (long j = 0; j < 4; j++) out[i * cols + t + j] = in[(t + j) * stride + i];
    }
  }
  for (; t < cols; t++) {
    for (long i = 0; i < width; i++) out[i * cols + t] = t < q ? in[t * stride + i] : 0.f;
  }
}

// out [q, wide]: the rows of all heads of a group, row t of head i times decays[i].*scale[t]. Whole rows at a time: the rows are
// met here for the first time, and the processor fetches ahead only along them.
static inline void scale_rows(const Scan& s, long q, const float* in, long stride, const Decays* decays, float* Decays::* scale,
                              float* out) {
  for (long t = 0; t < q; t++) {
    for (long i = 0; i < s.heads_per_group; i++) {
      const float* from = in + t * stride + i * s.head_dim;
      float factor = (decays[i].*scale)[t];
      for (long p = 0; p < s.head_dim; p += kWidth) {
        store_part(out + t * s.wide + i * s.head_dim + p, s.head_dim - p, load_part(from + p, s.head_dim - p) * factor);
      }
    }
  }
}

// Lower triangle, in whole vectors, of a [q, depth] times b [depth, rows]; all padded. out has rows of `rows` floats.
static inline void lower_product(const Chunk& k, long depth, const float* a, long a_stride, const float* b, float* out) {
  for (long t = 0; t < k.q; t += kSmallRows) {
    small_rows<kSmallRows>(round_up(t + kSmallRows, kWidth), depth, {a + t * a_stride, a_stride, 1}, b, k.rows, out + t * k.rows,
                           k.rows);
  }
}

// out [q, cols] = l v for lower triangular l.
static inline void apply_lower(const Chunk& k, const float* l, const float* v, long cols, float* out) {
  for (long t = 0; t < k.q; t += kSmallRows) {
    small_rows<kSmallRows>(cols, t + kSmallRows, {l + t * k.rows, k.rows, 1}, v, cols, out + t * cols, cols);
  }
}

// out [q, cols] = l^T v
static inline void apply_lower_transposed(const Chunk& k, const float* l, const float* v, long cols, float* out) {
  for (long t = 0; t < k.q; t += kSmallRows) {
    small_rows<kSmallRows>(cols, k.q - t, {l + t * k.rows + t, 1, k.rows}, v + t * cols, cols, out + t * cols, cols);
  }
}

}  // namespace SEGUE_VARIANT
