/** Up to so many bytes a member pulls whole nodes, whatever it would save to pull slices: a message's way costs more than they do. */
const SMALL_BYTES = 2 ** 20;

/**
 * Whether every member of a generation pulls its peers' nodes whole and adds by itself, instead of one slice of each.
 * @param nodeCounts of all members
 * @param vectorFloats of each node
 */
export function addsWhole(nodeCounts: readonly number[], vectorFloats: number): boolean {
  const members = nodeCounts.length;
  const nodes = nodeCounts.reduce((sum, count) => sum + count, 0);
  const mostPulled = nodes - Math.min(...nodeCounts);
  const vectorBytes = vectorFloats * Float32Array.BYTES_PER_ELEMENT;
  const wholeBytes = mostPulled * vectorBytes;
  const slicedBytes = (wholeBytes + vectorBytes * (members - 1)) / members;
  return wholeBytes <= Math.max(slicedBytes, SMALL_BYTES);
}
