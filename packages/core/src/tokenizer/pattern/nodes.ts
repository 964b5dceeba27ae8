/** A regular expression as a tree whose leaves are sets of characters. */
export type PatternNode =
  | { readonly kind: "set"; readonly source: string }
  | { readonly kind: "sequence" | "choice"; readonly items: readonly PatternNode[] }
  | {
      readonly kind: "repeat";
      readonly item: PatternNode;
      readonly min: number;
      readonly max: number;
      readonly mode: "greedy" | "lazy" | "possessive";
    }
  | { readonly kind: "atomic"; readonly item: PatternNode }
  | { readonly kind: "look"; readonly item: PatternNode; readonly ahead: boolean; readonly negative: boolean };

export const set = (source: string): PatternNode => ({ kind: "set", source });
export const sequence = (items: readonly PatternNode[]): PatternNode =>
  items.length === 1 ? items[0]! : { kind: "sequence", items };
export const choice = (items: readonly PatternNode[]): PatternNode => (items.length === 1 ? items[0]! : { kind: "choice", items });
export const look = (item: PatternNode, ahead: boolean, negative: boolean): PatternNode => ({
  kind: "look",
  item,
  ahead,
  negative,
});

/** A character as the source of a class of JavaScript's `v` mode. */
export const escaped = (character: string): string => `\\u{${character.codePointAt(0)!.toString(16)}}`;

/** The pattern that matches a text literally. */
export const literal = (text: string): PatternNode => sequence(Array.from(text, (character) => set(`[${escaped(character)}]`)));

/** JavaScript source for the flags `v`. */
export function toSource(node: PatternNode): string {
  let groups = 0;
  const write = (part: PatternNode): string => {
    switch (part.kind) {
      case "set":
        return part.source;
      case "sequence":
        return part.items.map((item) => (item.kind === "choice" ? `(?:${write(item)})` : write(item))).join("");
      case "choice":
        return part.items.map(write).join("|");
      case "repeat": {
        const counts = `{${part.min},${part.max === Infinity ? "" : part.max}}`;
        if (part.mode === "possessive") return write({ kind: "atomic", item: { ...part, mode: "greedy" } });
        return `(?:${write(part.item)})${counts}${part.mode === "lazy" ? "?" : ""}`;
      }
      case "atomic": {
        // JavaScript has no atomic groups, but never goes back into a lookahead.
        const group = ++groups;
        return `(?:(?=(${write(part.item)}))\\${group})`;
      }
      case "look":
        return `(?${part.ahead ? "" : "<"}${part.negative ? "!" : "="}${write(part.item)})`;
    }
  };
  return write(node);
}
