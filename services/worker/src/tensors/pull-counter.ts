import type { Handlers, Tensors } from "@segue/protocol";
import { faultPoint } from "@segue/runtime";

/** Counts the pulls under way, so that memory being sent is not written to. */
export class PullCounter {
  readonly #countOfRef = new Map<string, number>();

  underWay(ref: string): boolean {
    return this.#countOfRef.has(ref);
  }

  /** The same Tensors service, counted. */
  counting(handlers: Handlers<typeof Tensors>): Handlers<typeof Tensors> {
    const countOfRef = this.#countOfRef;
    return {
      async *pull(request, context) {
        const { ref } = request;
        countOfRef.set(ref, (countOfRef.get(ref) ?? 0) + 1);
        try {
          await faultPoint("worker.tensorAsked");
          yield* handlers.pull(request, context);
        } finally {
          const left = (countOfRef.get(ref) ?? 1) - 1;
          if (left > 0) countOfRef.set(ref, left);
          else countOfRef.delete(ref);
        }
      },
      // What is published in series is overwritten only when its receivers are known to have it.
      async *pullSeries(request, context) {
        await faultPoint("worker.tensorAsked");
        yield* handlers.pullSeries(request, context);
      },
    };
  }
}
