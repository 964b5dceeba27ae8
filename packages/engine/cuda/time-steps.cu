// Time steps, forward and backward. Formulas: src/devices/reference/mixer.ts.
#include "common.cuh"

// softplus as PyTorch computes it: the identity above 20.
__device__ __forceinline__ float softplus(float x) { return x > 20.f ? x : log1pf(expf(x)); }

extern "C" __global__ void time_steps(int rows, int heads, float low, float high, const Act* raw, int stride, const float* bias,
                                      float scale, float* dt) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= (i64)rows * heads) return;
  const i64 row = i / heads;
  const int head = i - row * heads;
  dt[i] = fminf(fmaxf(softplus(to_float(raw[row * stride + head]) + bias[head]), low), high) * scale;
}

// Blocks of 32 x 8 threads: 32 heads, rows in turns. Each leaves its share of the bias's gradient in a row of `partial`
// [gridDim.y, heads].
extern "C" __global__ void time_steps_backward(int rows, int heads, float low, float high, const Act* raw, int stride,
                                               const float* bias, const float* d_dt, Act* d_raw, int d_raw_stride, float* partial) {
  __shared__ float parts[8][33];
  const int head = blockIdx.x * 32 + threadIdx.x;
  float sum = 0.f;
  if (head < heads) {
    for (i64 row = blockIdx.y * 8 + threadIdx.y; row < rows; row += gridDim.y * 8) {
      const float x = to_float(raw[row * stride + head]) + bias[head], dt = softplus(x);
      const float slope = dt < low || dt > high ? 0.f : x > 20.f ? 1.f : 1.f / (1.f + expf(-x));
      const float d = d_dt[row * heads + head] * slope;
      store_float(d_raw + row * d_raw_stride + head, d);
      sum += d;
    }
  }
  parts[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || head >= heads) return;
  sum = 0.f;
  for (int i = 0; i < 8; i++) sum += parts[i][threadIdx.x];
  partial[(i64)blockIdx.y * heads + head] = sum;
}
