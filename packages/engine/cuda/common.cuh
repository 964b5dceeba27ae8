// What all kernels share. Activations are bf16 with SEGUE_BF16, else float; everything that is summed is float.
// Nothing is included: NVRTC compiles these sources where no toolkit headers exist.
#pragma once

typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;

struct bf16 {
  u16 bits;
};

#ifdef SEGUE_BF16
typedef bf16 Act;
#else
typedef float Act;
#endif

#include "ptx.cuh"

constexpr u32 kAllLanes = 0xffffffffu;
constexpr float kLowest = -3.402823466e38f;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
__device__ __forceinline__ void store_float(float* to, float x) { *to = x; }
__device__ __forceinline__ void store_float(bf16* to, float x) { to->bits = (u16)pack_bf16(x, 0.f); }

// kWidth neighbouring elements, 1, 2 or 4; the address is a multiple of as many.
template <int kWidth>
struct Vec {
  float v[kWidth];
};

// The same as they are in memory: half the registers while nobody has used them.
template <class T, int kWidth>
struct Raw {
  T v;
  __device__ __forceinline__ Vec<1> floats() const { return {to_float(v)}; }
};
template <>
struct Raw<float, 2> {
  float2 v;
  __device__ __forceinline__ Vec<2> floats() const { return {v.x, v.y}; }
};
template <>
struct Raw<float, 4> {
  float4 v;
  __device__ __forceinline__ Vec<4> floats() const { return {v.x, v.y, v.z, v.w}; }
};
__device__ __forceinline__ float low_half(u32 pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_half(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }
template <>
struct Raw<bf16, 2> {
  u32 v;
  __device__ __forceinline__ Vec<2> floats() const { return {low_half(v), high_half(v)}; }
};
template <>
struct Raw<bf16, 4> {
  uint2 v;
  __device__ __forceinline__ Vec<4> floats() const { return {low_half(v.x), high_half(v.x), low_half(v.y), high_half(v.y)}; }
};

template <int kWidth, class T>
__device__ __forceinline__ Raw<T, kWidth> load_raw(const T* from) {
  return *reinterpret_cast<const Raw<T, kWidth>*>(from);
}

template <int kWidth, class T>
__device__ __forceinline__ Vec<kWidth> load(const T* from) {
  return load_raw<kWidth>(from).floats();
}

__device__ __forceinline__ void store(float* to, const Vec<1>& x) { *to = x.v[0]; }
__device__ __forceinline__ void store(float* to, const Vec<2>& x) { *reinterpret_cast<float2*>(to) = make_float2(x.v[0], x.v[1]); }
__device__ __forceinline__ void store(float* to, const Vec<4>& x) {
  *reinterpret_cast<float4*>(to) = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
}
__device__ __forceinline__ void store(bf16* to, const Vec<1>& x) { store_float(to, x.v[0]); }
__device__ __forceinline__ void store(bf16* to, const Vec<2>& x) { *reinterpret_cast<u32*>(to) = pack_bf16(x.v[0], x.v[1]); }
__device__ __forceinline__ void store(bf16* to, const Vec<4>& x) {
  *reinterpret_cast<uint2*>(to) = make_uint2(pack_bf16(x.v[0], x.v[1]), pack_bf16(x.v[2], x.v[3]));
}

__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.f, 1.f + __expf(-x)); }

// The sum over a warp, the same bits in every lane.
__device__ __forceinline__ float warp_sum(float x) {
  for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

__device__ __forceinline__ float warp_max(float x) {
  for (int step = 16; step > 0; step >>= 1) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}

// The sum over a block, the same bits in every thread; `parts` holds 32 floats and may be used again after a barrier.
__device__ __forceinline__ float block_sum(float x, float* parts) {
  const int warps = (blockDim.x + 31) >> 5;
  x = warp_sum(x);
  if (warps == 1) return x;
  if ((threadIdx.x & 31) == 0) parts[threadIdx.x >> 5] = x;
  __syncthreads();
  x = 0.f;
  for (int i = 0; i < warps; i++) x += parts[i];
  return x;
}

// The sum over a block of up to 256 threads, a power of two, the same bits in every thread; once more only after a barrier.
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
