// Rows of tables, the norm over the residual stream, and sums of rows. Formulas: src/devices/reference/dense.ts.
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
