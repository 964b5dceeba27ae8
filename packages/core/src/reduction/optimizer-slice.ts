/** Optimizer slices begin and end with blocks of so many floats; squares of a gradient are summed within them, then over them in order. */
export const SLICE_BLOCK_FLOATS = 2 ** 14;

/**
 * The floats of the flat parameter vector, [begin, end), whose moments member `index` of `members` holds and steps under `sync.optimizer`
 * sharded. Empty where there are fewer blocks than members.
 */
export function optimizerSlice(
  index: number,
  members: number,
  parameters: number,
): { readonly begin: number; readonly end: number } {
  const blocks = Math.ceil(parameters / SLICE_BLOCK_FLOATS);
  const border = (number: number): number => Math.min(parameters, Math.floor((number * blocks) / members) * SLICE_BLOCK_FLOATS);
  return { begin: border(index), end: border(index + 1) };
}
