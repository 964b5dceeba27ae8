// A few threads that help the calling one through a list of numbered tasks.
//
// Not OpenMP: its regions end when every thread of the team has arrived, so on a machine with more to do than cores each region
// waits until the system gets round to running all of them (measured: 50 times slower with ten busy processes on two cores). Here
// the caller works through the tasks itself and waits only for tasks that a helper has really begun.
#pragma once

struct Pool;

typedef void (*PoolTask)(void* closure, long index);

Pool* pool_open(int threads);
void pool_close(Pool* pool);
// Runs task(closure, 0 .. count - 1), each once, in any order, and returns when all are done. Not to be called from a task.
void pool_run(Pool* pool, long count, PoolTask task, void* closure);
// Number of the calling thread within the pool whose task it runs; 0 outside.
int pool_thread();
