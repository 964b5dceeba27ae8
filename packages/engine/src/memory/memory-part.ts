/** One thing that a process holds. */
export interface MemoryPart {
  readonly name: string;
  /** How the bytes come about, in words. */
  readonly formula: string;
  readonly bytes: number;
  /** The machine's memory, or that of its GPU. */
  readonly place: "host" | "device";
}

export const FLOAT_BYTES = Float32Array.BYTES_PER_ELEMENT;
export const MIB = 2 ** 20;

export function hostPart(name: string, formula: string, bytes: number): MemoryPart {
  return { name, formula, bytes: Math.ceil(bytes), place: "host" };
}

export function bytesIn(parts: readonly MemoryPart[], place: MemoryPart["place"]): number {
  return parts.reduce((sum, part) => sum + (part.place === place ? part.bytes : 0), 0);
}
