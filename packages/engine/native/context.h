// One context per engine: how many threads it may use, and its scratch memory. Shared by all variants.
#pragma once
#include "pool.h"

#define SEGUE_API extern "C" __attribute__((visibility("default")))

constexpr int kScratchSlots = 24;

struct Scratch {
  float* data[kScratchSlots];
  long floats[kScratchSlots];
};

struct Context {
  int threads;
  Pool* pool;
  // One per thread, and one more that the threads share.
  Scratch* scratch;
};

// At least `floats` floats aligned to 64 bytes, the same ones as long as no larger number is asked for. Contents are undefined.
extern "C" __attribute__((visibility("hidden"))) float* segue_scratch(Context* ctx, int owner, int slot, long floats);
