import { setFloats, stretches, type PagedFloats } from "@segue/core";
import type { MomentSlice } from "../compute/calls.js";
import type { Slice } from "./membership.js";

/**
 * Fills a slice of moments, piece by piece, whose borders need not be its own: from slices that are held here, else from sources elsewhere.
 * @param pull gets floats of a source's tensor f32 [2, end - begin] from number `begin` on
 * @returns false where neither has them
 */
export async function fillMoments<Source extends Slice>(
  into: MomentSlice,
  held: readonly MomentSlice[],
  sources: readonly Source[],
  pull: (source: Source, floats: Float32Array, begin: number) => Promise<void>,
): Promise<boolean> {
  for (let at = into.begin; at < into.end;) {
    const has = ({ begin, end }: Slice): boolean => begin <= at && at < end;
    const own = held.find(has);
    const source = sources.find(has);
    const piece = own ?? source;
    if (!piece) return false;
    const end = Math.min(into.end, piece.end);
    for (const [which, vector] of [into.first, into.second].entries()) {
      if (own) copyFloats(which === 0 ? own.first : own.second, at - own.begin, vector, at - into.begin, end - at);
      else if (source) {
        for (const { offset, floats } of stretches(vector, at - into.begin, end - into.begin)) {
          await pull(source, floats, which * (source.end - source.begin) + into.begin + offset - source.begin);
        }
      }
    }
    at = end;
  }
  return true;
}

function copyFloats(from: PagedFloats, fromOffset: number, into: PagedFloats, intoOffset: number, length: number): void {
  for (const { offset, floats } of stretches(from, fromOffset, fromOffset + length)) {
    setFloats(into, floats, offset - fromOffset + intoOffset);
  }
}
