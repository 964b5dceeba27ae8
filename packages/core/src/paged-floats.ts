/** 1 GiB: whatever the length of a vector, no array of more than 2^31 bytes is made of it. A multiple of every block size. */
export const PAGE_FLOATS = 2 ** 28;

/**
 * A flat vector of float32 that may be too long for one array: pages of one length, the last of which may be shorter. Plain data, so that it
 * crosses threads.
 */
export interface PagedFloats {
  readonly length: number;
  readonly pages: readonly Float32Array[];
}

/** What of a range lies in one page. */
export interface Stretch {
  /** First float, counted from the vector's begin. */
  readonly offset: number;
  /** A view of the page. */
  readonly floats: Float32Array;
}

/** A vector in new pages. @param allocate makes a page; by default zeros of this thread */
export function pagedFloats(
  length: number,
  pageFloats = PAGE_FLOATS,
  allocate: (floats: number) => Float32Array = (floats) => new Float32Array(floats),
): PagedFloats {
  const count = Math.ceil(length / pageFloats);
  const pages = Array.from({ length: count }, (_, page) => allocate(Math.min(pageFloats, length - page * pageFloats)));
  return { length, pages };
}

/** A vector whose only page is this array. */
export function onePage(floats: Float32Array): PagedFloats {
  return { length: floats.length, pages: floats.length === 0 ? [] : [floats] };
}

/** The stretches of the floats from `begin` to before `end`, in order. */
export function* stretches({ length, pages }: PagedFloats, begin = 0, end = length): Generator<Stretch, void, undefined> {
  const pageFloats = pages[0]?.length ?? 1;
  for (let offset = begin; offset < end;) {
    const page = Math.floor(offset / pageFloats);
    const pageBegin = page * pageFloats;
    const floats = pages[page]?.subarray(offset - pageBegin, end - pageBegin);
    if (!floats || floats.length === 0) throw new RangeError(`float ${offset} is not among the ${length} of the vector`);
    yield { offset, floats };
    offset += floats.length;
  }
}

/** Copies floats into a vector from `offset` on. */
export function setFloats(into: PagedFloats, from: Float32Array, offset: number): void {
  for (const { offset: at, floats } of stretches(into, offset, offset + from.length)) {
    floats.set(from.subarray(at - offset, at - offset + floats.length));
  }
}
