// The cross-entropy of rows of logits, and its gradient. Formulas: src/devices/reference/dense.ts.
#include "common.cuh"

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
