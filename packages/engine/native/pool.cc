#include "pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

namespace {

// How often a thread looks again before it sleeps: some tens of microseconds, longer than the pause between two operations.
constexpr int kSpins = 2000;

thread_local int current_thread = 0;

inline void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

template <class T>
T get(const T& shared) {
  return __atomic_load_n(&shared, __ATOMIC_SEQ_CST);
}
template <class T>
void set(T& shared, T value) {
  __atomic_store_n(&shared, value, __ATOMIC_SEQ_CST);
}
template <class T>
T add(T& shared, T value) {
  return __atomic_fetch_add(&shared, value, __ATOMIC_SEQ_CST);
}

}  // namespace

// A helper enters a job by raising `active` and then seeing it open; the caller leaves it by closing it and then seeing `active` at
// zero. One of the two always sees the other, so no helper touches a job that its caller has left.
struct Pool {
  int threads;
  bool started;
  pthread_t* helpers;

  PoolTask task;
  void* closure;
  long count;
  alignas(64) long next;
  // Number of the job that may be entered, 0: none.
  alignas(64) long open;
  alignas(64) int active;
  int sleeping;
  int caller_sleeps;
  int closing;
  long last_job;

  pthread_mutex_t lock;
  pthread_cond_t work, done;
};

namespace {

void take_tasks(Pool* pool) {
  for (;;) {
    long index = add(pool->next, 1l);
    if (index >= pool->count) return;
    pool->task(pool->closure, index);
  }
}

// Waits for a job other than `seen`. False: the pool closes.
bool await_job(Pool* pool, long seen) {
  for (int spin = 0; spin < kSpins; spin++) {
    long open = get(pool->open);
    if (open != 0 && open != seen) return true;
    if (get(pool->closing)) return false;
    pause_briefly();
  }
  pthread_mutex_lock(&pool->lock);
  add(pool->sleeping, 1);
  for (;;) {
    long open = get(pool->open);
    if ((open != 0 && open != seen) || get(pool->closing)) break;
    pthread_cond_wait(&pool->work, &pool->lock);
  }
  add(pool->sleeping, -1);
  pthread_mutex_unlock(&pool->lock);
  return !get(pool->closing);
}

struct HelperStart {
  Pool* pool;
  int thread;
};

void* help(void* argument) {
  HelperStart start = *(HelperStart*)argument;
  free(argument);
  current_thread = start.thread;
  Pool* pool = start.pool;
  long seen = 0;
  while (await_job(pool, seen)) {
    add(pool->active, 1);
    long open = get(pool->open);
    if (open != 0) {
      seen = open;
      take_tasks(pool);
    }
    if (add(pool->active, -1) == 1 && get(pool->caller_sleeps)) {
      pthread_mutex_lock(&pool->lock);
      pthread_cond_signal(&pool->done);
      pthread_mutex_unlock(&pool->lock);
    }
  }
  return nullptr;
}

// Signals stay with the threads of the host program.
void start_helpers(Pool* pool) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pool->helpers = (pthread_t*)calloc((size_t)pool->threads, sizeof(pthread_t));
  int started = 1;
  for (; started < pool->threads; started++) {
    HelperStart* start = (HelperStart*)malloc(sizeof(HelperStart));
    *start = {pool, started};
    // With fewer helpers than wanted everything still works.
    if (pthread_create(&pool->helpers[started], nullptr, help, start) != 0) {
      free(start);
      break;
    }
  }
  pool->threads = started;
  pool->started = true;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void await_helpers(Pool* pool) {
  for (int spin = 0; spin < kSpins; spin++) {
    if (get(pool->active) == 0) return;
    pause_briefly();
  }
  set(pool->caller_sleeps, 1);
  pthread_mutex_lock(&pool->lock);
  while (get(pool->active) != 0) pthread_cond_wait(&pool->done, &pool->lock);
  pthread_mutex_unlock(&pool->lock);
  set(pool->caller_sleeps, 0);
}

}  // namespace

Pool* pool_open(int threads) {
  Pool* pool = (Pool*)aligned_alloc(64, (sizeof(Pool) + 63) / 64 * 64);
  if (!pool) abort();
  *pool = Pool{};
  pool->threads = threads;
  pthread_mutex_init(&pool->lock, nullptr);
  pthread_cond_init(&pool->work, nullptr);
  pthread_cond_init(&pool->done, nullptr);
  return pool;
}

void pool_close(Pool* pool) {
  if (pool->started) {
    pthread_mutex_lock(&pool->lock);
    set(pool->closing, 1);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (int thread = 1; thread < pool->threads; thread++) pthread_join(pool->helpers[thread], nullptr);
  }
  pthread_cond_destroy(&pool->work);
  pthread_cond_destroy(&pool->done);
  pthread_mutex_destroy(&pool->lock);
  free(pool->helpers);
  free(pool);
}

void pool_run(Pool* pool, long count, PoolTask task, void* closure) {
  if (!pool->started) start_helpers(pool);
  pool->task = task;
  pool->closure = closure;
  pool->count = count;
  pool->next = 0;
  set(pool->open, ++pool->last_job);
  if (get(pool->sleeping) > 0) {
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
  }
  take_tasks(pool);
  set(pool->open, 0l);
  await_helpers(pool);
}

int pool_thread() { return current_thread; }
