// The sum of the gradients of several nodes of the reduction tree, some of them in memory of other GPUs. SUM_OF_NODES is the order of
// additions, for example ((X(0)+X(1))+X(2)); it is compiled in, so that all sources are read at once and nothing is kept in between.
#include "common.cuh"

template <int kWidth>
__device__ __forceinline__ Vec<kWidth> operator+(const Vec<kWidth>& a, const Vec<kWidth>& b) {
  Vec<kWidth> sum;
  for (int j = 0; j < kWidth; j++) sum.v[j] = a.v[j] + b.v[j];
  return sum;
}

#define X(k) load<kWidth>(sources[k] + i)

template <int kWidth>
__device__ __forceinline__ void sum_at(i64 i, const float* const* sources, float* out) {
  store(out + i, SUM_OF_NODES);
}

// vector: elements of a thread, 4 where all addresses are multiples of 16, else 1.
extern "C" __global__ void sum_nodes(i64 count, int vector, const float* const* sources, float* out) {
  const i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * vector;
  if (vector == 4 && i + 4 <= count) {
    sum_at<4>(i, sources, out);
    return;
  }
  for (i64 k = i; k < i + vector && k < count; k++) sum_at<1>(k, sources, out);
}
