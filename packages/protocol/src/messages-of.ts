import { create, type DescMessage, type Message } from "@bufbuild/protobuf";

/**
 * Makes messages of what an iterable yields. Not a generator, because its return() must reach the source at once, even while the
 * source's next() is pending.
 */
export function messagesOf(schema: DescMessage, source: AsyncIterable<Message>): AsyncIterable<Message> {
  return {
    [Symbol.asyncIterator]() {
      const iterator = source[Symbol.asyncIterator]();
      return {
        async next() {
          const next = await iterator.next();
          return next.done ? { done: true, value: undefined } : { done: false, value: create(schema, next.value) };
        },
        async return() {
          await iterator.return?.();
          return { done: true, value: undefined };
        },
      };
    },
  };
}
