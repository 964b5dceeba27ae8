import { setTimeout as sleep } from "node:timers/promises";

/** When a test gives up on something that does not come: a little before mocha names it as hung. No sign of what is slow. */
export const PATIENCE_MS = 2_640_000;

/**
 * Asks again and again until there is an answer other than undefined and false.
 * @param what the end of the sentence "waited in vain for"; a function is called when it is needed, to tell what there was instead
 * @throws Error after {@link PATIENCE_MS}
 */
export async function until<T>(
  ask: () => T | undefined | false | Promise<T | undefined | false>,
  what: string | (() => string),
  everyMs = 20,
): Promise<T> {
  for (const startedAtMs = performance.now(); performance.now() - startedAtMs < PATIENCE_MS;) {
    const answer = await ask();
    if (answer !== undefined && answer !== false) return answer;
    // Not a reason for the process to live on when mocha has given up on the test.
    await sleep(everyMs, undefined, { ref: false });
  }
  throw new Error(`waited in vain for ${typeof what === "string" ? what : what()}`);
}
