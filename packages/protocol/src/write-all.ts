import type { Writable } from "node:stream";
import { ABORTED, Waits } from "./abort.js";

/**
 * Writes every message to the sink and waits whenever its buffer is full: without the wait, grpc-js would buffer the whole stream.
 * Returns when the messages end or the signal aborts; either way the iterable is told to finish. Does not end the sink.
 */
export async function writeAll<T>(sink: Writable, messages: AsyncIterable<T>, signal: AbortSignal): Promise<void> {
  const iterator = messages[Symbol.asyncIterator]();
  const waits = new Waits(signal);
  try {
    for (;;) {
      const next = await waits.until(iterator.next());
      if (next === ABORTED) break;
      if (next.done) return;
      if (!sink.write(next.value) && (await waits.until(drained(sink))) === ABORTED) break;
    }
  } finally {
    waits.close();
  }
  // Not awaited: a generator that is stuck in an await would hold the call for as long as it is stuck.
  iterator.return?.().catch(() => undefined);
}

function drained(sink: Writable): Promise<void> {
  return new Promise((resolve) => sink.once("drain", resolve));
}
