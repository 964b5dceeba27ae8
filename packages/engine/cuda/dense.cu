// Rows of tables, norms, the loss, vectors, the optimizer. Formulas: src/devices/reference/dense.ts.
#include "common.cuh"

// A row is held in registers: each thread has up to kPieces vectors of it.
constexpr int kPieces = 2;

extern "C" __global__ void gather_rows_float(int width, const float* table, const int* ids, float* out) {
  const i64 row = blockIdx.x, from = ids[row];
  for (int i = threadIdx.x; i < width; i += blockDim.x) out[row * width + i] = table[from * width + i];
}

extern "C" __global__ void gather_rows_act(int width, const Act* table, const int* ids, Act* out) {
  const i64 row = blockIdx.x, from = ids[row];
  for (int i = threadIdx.x; i < width; i += blockDim.x) out[row * width + i] = table[from * width + i];
}

template <int kWidth>
__device__ __forceinline__ void add_norm_row(int width, float eps, const float* residual, const Act* delta, const float* weight,
                                             float* sum, Act* out, float* inverse_rms) {
  __shared__ float parts[32];
  const i64 row = blockIdx.x;
  Vec<kWidth> x[kPieces];
  float squares = 0.f;
#pragma unroll
  for (int k = 0; k < kPieces; k++) {
    const int i = (threadIdx.x + k * blockDim.x) * kWidth;
    if (i >= width) break;
    x[k] = load<kWidth>(residual + row * width + i);
    if (delta) {
      Vec<kWidth> d = load<kWidth>(delta + row * width + i);
      for (int j = 0; j < kWidth; j++) x[k].v[j] += d.v[j];
    }
    for (int j = 0; j < kWidth; j++) squares += x[k].v[j] * x[k].v[j];
    store(sum + row * width + i, x[k]);
  }
  const float inverse = 1.f / sqrtf(block_sum(squares, parts) / width + eps);
  if (threadIdx.x == 0) inverse_rms[row] = inverse;
#pragma unroll
  for (int k = 0; k < kPieces; k++) {
    const int i = (threadIdx.x + k * blockDim.x) * kWidth;
    if (i >= width) break;
    Vec<kWidth> w = load<kWidth>(weight + i);
    for (int j = 0; j < kWidth; j++) w.v[j] *= x[k].v[j] * inverse;
    store(out + row * width + i, w);
  }
}

// One block per row.
extern "C" __global__ void add_norm(int width, int vector, float eps, const float* residual, const Act* delta, const float* weight,
                                    float* sum, Act* out, float* inverse_rms) {
  if (vector == 4)
    add_norm_row<4>(width, eps, residual, delta, weight, sum, out, inverse_rms);
  else
    add_norm_row<1>(width, eps, residual, delta, weight, sum, out, inverse_rms);
}

template <int kWidth>
__device__ __forceinline__ void add_norm_backward_rows(int rows, int width, const float* sum, const float* weight,
                                                       const float* inverse_rms, const Act* d_out, float* d_sum, bf16* d_sum_bf16,
                                                       int accumulate, float* partial, Act* out) {
  __shared__ float parts[2][32];
  Vec<kWidth> w[kPieces], d_w[kPieces];
#pragma unroll
  for (int k = 0; k < kPieces; k++) {
    const int i = (threadIdx.x + k * blockDim.x) * kWidth;
    for (int j = 0; j < kWidth; j++) d_w[k].v[j] = 0.f;
    if (i < width) w[k] = load<kWidth>(weight + i);
  }
  // The next row is on its way while one is worked on.
  Raw<float, kWidth> next_x[kPieces], next_d[kPieces];
  Raw<Act, kWidth> next_g[kPieces];
  auto ask = [&](i64 row) {
#pragma unroll
    for (int k = 0; k < kPieces; k++) {
      const int i = (threadIdx.x + k * blockDim.x) * kWidth;
      if (i >= width) break;
      next_x[k] = load_raw<kWidth>(sum + row * width + i);
      next_g[k] = load_raw<kWidth>(d_out + row * width + i);
      if (accumulate) next_d[k] = load_raw<kWidth>(d_sum + row * width + i);
    }
  };
  ask(blockIdx.x);
  int turn = 0;
  for (i64 row = blockIdx.x; row < rows; row += gridDim.x, turn ^= 1) {
    Vec<kWidth> x[kPieces], g[kPieces], d[kPieces];
#pragma unroll
    for (int k = 0; k < kPieces; k++) x[k] = next_x[k].floats(), g[k] = next_g[k].floats(), d[k] = next_d[k].floats();
    if (row + gridDim.x < rows) ask(row + gridDim.x);
    float dots = 0.f;
#pragma unroll
    for (int k = 0; k < kPieces; k++) {
      const int i = (threadIdx.x + k * blockDim.x) * kWidth;
      if (i >= width) break;
      for (int j = 0; j < kWidth; j++) dots += x[k].v[j] * w[k].v[j] * g[k].v[j];
    }
    const float inverse = inverse_rms[row];
    const float mean = block_sum(dots, parts[turn]) * inverse * inverse * inverse / width;
#pragma unroll
    for (int k = 0; k < kPieces; k++) {
      const int i = (threadIdx.x + k * blockDim.x) * kWidth;
      if (i >= width) break;
      Vec<kWidth> dx = d[k], again;
      for (int j = 0; j < kWidth; j++) {
        const float normed = x[k].v[j] * inverse;
        d_w[k].v[j] += g[k].v[j] * normed;
        again.v[j] = normed * w[k].v[j];
        const float own = g[k].v[j] * w[k].v[j] * inverse - x[k].v[j] * mean;
        dx.v[j] = accumulate ? dx.v[j] + own : own;
      }
      store(d_sum + row * width + i, dx);
      if (d_sum_bf16) store(d_sum_bf16 + row * width + i, dx);
      store(out + row * width + i, again);
    }
  }
#pragma unroll
  for (int k = 0; k < kPieces; k++) {
    const int i = (threadIdx.x + k * blockDim.x) * kWidth;
    if (i < width) store(partial + (i64)blockIdx.x * width + i, d_w[k]);
  }
}

// Blocks take turns at the rows; each leaves its share of the weight's gradient in a row of `partial` [blocks, width].
extern "C" __global__ void add_norm_backward(int rows, int width, int vector, const float* sum, const float* weight,
                                             const float* inverse_rms, const Act* d_out, float* d_sum, bf16* d_sum_bf16,
                                             int accumulate, float* partial, Act* out) {
  if (vector == 4)
    add_norm_backward_rows<4>(rows, width, sum, weight, inverse_rms, d_out, d_sum, d_sum_bf16, accumulate, partial, out);
  else
    add_norm_backward_rows<1>(rows, width, sum, weight, inverse_rms, d_out, d_sum, d_sum_bf16, accumulate, partial, out);
}

// out [columns] = sum of the rows of partial [count, stride], in a fixed order. Blocks of 32 x 32 threads, 32 columns each.
extern "C" __global__ void column_sums(int count, int columns, int stride, const float* partial, float* out) {
  __shared__ float parts[32][33];
  const int column = blockIdx.x * 32 + threadIdx.x;
  float sum = 0.f;
  if (column < columns) {
    for (int row = threadIdx.y; row < count; row += 32) sum += partial[(i64)row * stride + column];
  }
  parts[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  sum = warp_sum(parts[threadIdx.x][threadIdx.y]);
  const int own = blockIdx.x * 32 + threadIdx.y;
  if (threadIdx.x == 0 && own < columns) out[own] = sum;
}

// The largest element and the sum of exponentials below it, joined in a fixed order.
struct Softmax {
  float top, total;
};

__device__ __forceinline__ Softmax join(Softmax a, Softmax b) {
  const float top = fmaxf(a.top, b.top);
  return {top, a.total * __expf(a.top - top) + b.total * __expf(b.top - top)};
}

// Vectors of logits that a thread keeps while it learns the largest and the sum.
constexpr int kKept = 13;

template <int kWidth>
__device__ __forceinline__ void softmax_row(int vocab, Act* logits, const int* labels, const float* weights, float* losses) {
  __shared__ float tops[32], totals[32];
  const i64 row = blockIdx.x;
  Act* x = logits + row * vocab;
  const int label = labels[row], stride = blockDim.x * kWidth;
  const float at_label = to_float(x[label]);
  Raw<Act, kWidth> kept[kKept];
  float top = kLowest;
#pragma unroll
  for (int k = 0; k < kKept; k++) {
    const int i = threadIdx.x * kWidth + k * stride;
    if (i >= vocab) break;
    kept[k] = load_raw<kWidth>(x + i);
  }
#pragma unroll
  for (int k = 0; k < kKept; k++) {
    if ((int)threadIdx.x * kWidth + k * stride >= vocab) break;
    const Vec<kWidth> v = kept[k].floats();
    for (int j = 0; j < kWidth; j++) top = fmaxf(top, v.v[j]);
  }
  Softmax own = {top, 0.f};
#pragma unroll
  for (int k = 0; k < kKept; k++) {
    if ((int)threadIdx.x * kWidth + k * stride >= vocab) break;
    const Vec<kWidth> v = kept[k].floats();
    for (int j = 0; j < kWidth; j++) own.total += __expf(v.v[j] - top);
  }
  for (int i = threadIdx.x * kWidth + kKept * stride; i < vocab; i += stride) {
    const Vec<kWidth> v = load<kWidth>(x + i);
    for (int j = 0; j < kWidth; j++) own = join(own, {v.v[j], 1.f});
  }
  for (int step = 16; step > 0; step >>= 1) {
    Softmax other = {__shfl_xor_sync(kAllLanes, own.top, step), __shfl_xor_sync(kAllLanes, own.total, step)};
    own = join(own, other);
  }
  if ((threadIdx.x & 31) == 0) tops[threadIdx.x >> 5] = own.top, totals[threadIdx.x >> 5] = own.total;
  __syncthreads();
  own = {tops[0], totals[0]};
  for (int i = 1; i < (int)(blockDim.x >> 5); i++) own = join(own, {tops[i], totals[i]});
  if (threadIdx.x == 0) losses[row] = logf(own.total) + own.top - at_label;
  if (!weights) return;
  const float weight = weights[row], scale = weight / own.total;
  auto put = [&](int i, Vec<kWidth> v) {
    for (int j = 0; j < kWidth; j++) {
      v.v[j] = scale * __expf(v.v[j] - own.top);
      if (i + j == label) v.v[j] -= weight;
    }
    store(x + i, v);
  };
#pragma unroll
  for (int k = 0; k < kKept; k++) {
    const int i = threadIdx.x * kWidth + k * stride;
    if (i >= vocab) break;
    put(i, kept[k].floats());
  }
  for (int i = threadIdx.x * kWidth + kKept * stride; i < vocab; i += stride) put(i, load<kWidth>(x + i));
}

// One block per row: the cross-entropy, and with weights the gradient of the weighted loss in place of the logits.
extern "C" __global__ void __launch_bounds__(1024) softmax_rows(int vocab, int vector, Act* logits, const int* labels, const float* weights,
                                        float* losses) {
  if (vector == 4)
    softmax_row<4>(vocab, logits, labels, weights, losses);
  else
    softmax_row<1>(vocab, logits, labels, weights, losses);
}

extern "C" __global__ void add_vectors(i64 count, const float* from, float* to) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) to[i] += from[i];
}

extern "C" __global__ void round_to_bf16(i64 count, const float* from, bf16* to) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) store_float(to + i, from[i]);
}

__device__ __forceinline__ double block_sum_double(double x) {
  __shared__ double sums[256];
  sums[threadIdx.x] = x;
  __syncthreads();
  for (int half = blockDim.x / 2; half > 0; half >>= 1) {
    if ((int)threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  return sums[0];
}

// partial[block] = the block's share of the sum of squares; 256 threads.
extern "C" __global__ void sum_of_squares(i64 count, const float* x, double* partial) {
  double sum = 0;
  for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (i64)gridDim.x * blockDim.x) sum += (double)x[i] * x[i];
  sum = block_sum_double(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// One block of 256 threads: out = sum of partial.
extern "C" __global__ void sum_of_partials(int count, const double* partial, double* out) {
  double sum = 0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) sum += partial[i];
  sum = block_sum_double(sum);
  if (threadIdx.x == 0) *out = sum;
}

// One block of 256 threads: out = sum of x * weights (1 where there are none).
extern "C" __global__ void weighted_sum(int count, const float* x, const float* weights, double* out) {
  double sum = 0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) sum += (double)x[i] * weights[i];
  sum = block_sum_double(sum);
  if (threadIdx.x == 0) *out = sum;
}

// Of one optimizer step; in device memory, so that a captured graph need not change with it.
struct AdamW {
  float mean, clip_norm, learning_rate, beta1, beta2, epsilon, weight_decay, correction1, correction2;
};

__device__ __forceinline__ void adamw_element(const AdamW& h, float scale, float shrink, float gradient, float& p, float& m, float& v) {
  const float g = gradient * scale;
  m = h.beta1 * m + (1.f - h.beta1) * g;
  v = h.beta2 * v + (1.f - h.beta2) * g * g;
  const float update = m * h.correction1 / (sqrtf(v * h.correction2) + h.epsilon);
  p = p - h.learning_rate * update - shrink * p;
}

// Clipping by the norm of the whole gradient, the step, and the parameters rounded for the matrix products, in one pass. The
// elements between decay_edges[2 i] and decay_edges[2 i + 1] decay. No squared_norm: no clipping. Four elements a thread.
extern "C" __global__ void adamw(i64 count, const AdamW* step, const double* squared_norm, int edges, const i64* decay_edges,
                                 const float* gradient, float* parameters, float* first, float* second, bf16* rounded) {
  const AdamW h = *step;
  float scale = h.mean;
  if (squared_norm && h.clip_norm > 0.f) {
    const float norm = (float)(sqrt(*squared_norm) * h.mean);
    if (norm > h.clip_norm) scale *= h.clip_norm / norm;
  }
  const i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 4;
  if (i >= count) return;
  int low = 0, high = edges;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (decay_edges[middle] <= i)
      low = middle + 1;
    else
      high = middle;
  }
  const bool aligned = ((u64)gradient | (u64)parameters | (u64)first | (u64)second) % 16 == 0 && (u64)rounded % 8 == 0;
  if (aligned && i + 4 <= count && (low == edges || decay_edges[low] >= i + 4)) {
    const float shrink = low % 2 ? h.learning_rate * h.weight_decay : 0.f;
    Vec<4> g = load<4>(gradient + i), p = load<4>(parameters + i), m = load<4>(first + i), v = load<4>(second + i);
    for (int j = 0; j < 4; j++) adamw_element(h, scale, shrink, g.v[j], p.v[j], m.v[j], v.v[j]);
    store(parameters + i, p), store(first + i, m), store(second + i, v);
    if (rounded) store(rounded + i, p);
    return;
  }
  for (i64 k = i; k < i + 4 && k < count; k++) {
    while (low < edges && decay_edges[low] <= k) low++;
    float p = parameters[k], m = first[k], v = second[k];
    adamw_element(h, scale, low % 2 ? h.learning_rate * h.weight_decay : 0.f, gradient[k], p, m, v);
    parameters[k] = p, first[k] = m, second[k] = v;
    if (rounded) store_float(rounded + k, p);
  }
}

// One block of 256 threads per lane and head.
extern "C" __global__ void state_statistics(int heads, int size, const float* state, i64 stride, float* out) {
  __shared__ float parts[32];
  const i64 unit = blockIdx.x;
  const float* x = state + unit / heads * stride + unit % heads * size;
  double sum = 0, squares = 0, spread = 0;
  float largest = 0.f;
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    sum += x[i];
    squares += (double)x[i] * x[i];
    largest = fmaxf(largest, fabsf(x[i]));
  }
  const double mean = block_sum_double(sum) / size;
  __syncthreads();
  squares = block_sum_double(squares);
  __syncthreads();
  for (int i = threadIdx.x; i < size; i += blockDim.x) spread += (x[i] - mean) * (x[i] - mean);
  spread = block_sum_double(spread);
  largest = warp_max(largest);
  if ((threadIdx.x & 31) == 0) parts[threadIdx.x >> 5] = largest;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int i = 1; i < 8; i++) largest = fmaxf(largest, parts[i]);
  out[unit * 4] = (float)mean;
  out[unit * 4 + 1] = (float)(spread / (size - 1));
  out[unit * 4 + 2] = (float)sqrt(squares / size);
  out[unit * 4 + 3] = largest;
}
