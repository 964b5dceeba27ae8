// table[ids[r]] += rows[r] in row order, whoever computes it: rows are sorted by id (a stable counting sort over tiles of rows),
// then each id's rows are added one after the other.
#include "common.cuh"

constexpr int kTile = 256;

// Per tile of rows: each row's rank among the tile's rows with its id, and counts [tiles, vocab] of each id (zeroed before).
extern "C" __global__ void rank_ids(int rows, int vocab, const int* ids, int* ranks, int* counts) {
  __shared__ int tile[kTile];
  const int row = blockIdx.x * kTile + threadIdx.x;
  const int id = row < rows ? ids[row] : -1;
  tile[threadIdx.x] = id;
  __syncthreads();
  if (row >= rows) return;
  int rank = 0, later = 0;
  for (int i = 0; i < kTile; i++) {
    const bool same = tile[i] == id;
    if (i < (int)threadIdx.x)
      rank += same;
    else if (i > (int)threadIdx.x)
      later += same;
  }
  ranks[row] = rank;
  if (later == 0) counts[(i64)blockIdx.x * vocab + id] = rank + 1;
}

// Turns counts into each tile's offset within its id; totals [vocab].
extern "C" __global__ void offset_ids(int tiles, int vocab, int* counts, int* totals) {
  const int id = blockIdx.x * blockDim.x + threadIdx.x;
  if (id >= vocab) return;
  int sum = 0;
  for (int tile = 0; tile < tiles; tile++) {
    const int count = counts[(i64)tile * vocab + id];
    counts[(i64)tile * vocab + id] = sum;
    sum += count;
  }
  totals[id] = sum;
}

// starts [vocab + 1] = exclusive sums of totals; one block of 1024 threads.
extern "C" __global__ void start_ids(int vocab, const int* totals, int* starts) {
  __shared__ int sums[1024];
  const int part = (vocab + 1023) / 1024, first = threadIdx.x * part;
  int sum = 0;
  for (int i = first; i < first + part && i < vocab; i++) sum += totals[i];
  sums[threadIdx.x] = sum;
  __syncthreads();
  for (int step = 1; step < 1024; step <<= 1) {
    const int before = (int)threadIdx.x >= step ? sums[threadIdx.x - step] : 0;
    __syncthreads();
    sums[threadIdx.x] += before;
    __syncthreads();
  }
  int start = sums[threadIdx.x] - sum;
  for (int i = first; i < first + part && i < vocab; i++) {
    starts[i] = start;
    start += totals[i];
  }
  if (threadIdx.x == 1023) starts[vocab] = sums[1023];
}

extern "C" __global__ void place_rows(int rows, int vocab, const int* ids, const int* ranks, const int* offsets, const int* starts,
                                      int* order) {
  const int row = blockIdx.x * kTile + threadIdx.x;
  if (row >= rows) return;
  const int id = ids[row];
  order[starts[id] + offsets[(i64)blockIdx.x * vocab + id] + ranks[row]] = row;
}

// Grid [vocab, column blocks].
extern "C" __global__ void add_sorted_rows(int width, const int* starts, const int* order, const float* rows, float* table) {
  const int id = blockIdx.x, first = starts[id], end = starts[id + 1];
  const int column = blockIdx.y * blockDim.x + threadIdx.x;
  if (first == end || column >= width) return;
  float sum = table[(i64)id * width + column];
  for (int i = first; i < end; i++) sum += rows[(i64)order[i] * width + column];
  table[(i64)id * width + column] = sum;
}
