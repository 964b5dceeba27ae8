// DiLoCo's outer step and what it is made from. Formulas: src/devices/reference/outer.ts. What is kept is rounded to float once, so that
// the bits are those of other devices: every operation in between is rounded to double by itself, none is fused.
#include "common.cuh"

extern "C" __global__ void subtract_vectors(i64 count, const float* from, const float* subtrahend, float* out) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) out[i] = from[i] - subtrahend[i];
}

extern "C" __global__ void divide_vector(i64 count, float divisor, const float* from, float* out) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) out[i] = __fdiv_rn(from[i], divisor);
}

// changes: the sum over replicas. rounded: the parameters for matrix products, if there are such.
extern "C" __global__ void outer_step(i64 count, float replicas, double learning_rate, double momentum, const float* changes,
                                      const float* start, float* velocity, float* parameters, bf16* rounded) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const float change = __fdiv_rn(changes[i], replicas);
  const float u = (float)__dadd_rn(__dmul_rn(momentum, (double)velocity[i]), (double)change);
  const double step = __dadd_rn((double)change, __dmul_rn(momentum, (double)u));
  const float p = (float)__dsub_rn((double)start[i], __dmul_rn(learning_rate, step));
  velocity[i] = u, parameters[i] = p;
  if (rounded) store_float(rounded + i, p);
}
