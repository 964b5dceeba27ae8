/** Rounds of looking before this thread lets go of its core. */
const SPINS = 50;
const PAUSE_MS = 0.05;
const clock = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));

/** Looks again and again until `isDone`; others get this thread's core meanwhile. */
export function pollUntil(isDone: () => boolean, check: () => void): void {
  for (let polls = 0; !isDone(); polls++) {
    check();
    if (polls >= SPINS) Atomics.wait(clock, 0, 0, PAUSE_MS);
  }
}
