import { setFlagsFromString } from "node:v8";

/**
 * Tells V8 to collect early rather than to let heaps grow: services hold their data in buffers outside of the heap, and a buffer that has
 * been sent is not freed before the heap that knows of it is collected. Without it, the dead buffers of a long document double a
 * service's memory before V8 looks for them (`bench/long-document.ts`); with it, nothing measurable is lost, unless very many objects live
 * at once: see {@link letHeapGrow}.
 */
export function keepHeapsSmall(): void {
  // Old generation: collected when it has grown by a third.
  setFlagsFromString("--optimize-for-size");
  // Young generation of threads started from now on, in MiB, and of this one, which is there already.
  setFlagsFromString("--max-semi-space-size=2");
  setFlagsFromString("--semi-space-growth-factor=1");
}

/**
 * Undoes {@link keepHeapsSmall} for the calling thread. A coordinator of a thousand workers has so many streams, queues and messages that
 * looking through them again and again takes more time than everything else it does (`bench/scale.ts`).
 */
export function letHeapGrow(): void {
  setFlagsFromString("--no-optimize-for-size");
  setFlagsFromString("--semi-space-growth-factor=2");
}
