/**
 * A change of a trained model's recurrence in inference, against state collapse (paper.md section 2). Each changes nothing, to the bit, at its
 * neutral settings.
 */
export type CureSpec =
  | { readonly kind: "none" }
  /** Reduced retention and insertion: ln(retention) is added to the log-decay after softplus, B is multiplied by insertion (2.1). */
  | { readonly kind: "reduced"; readonly retention: number; readonly insertion: number }
  /**
   * State normalisation: every `everyTokens` tokens a head's state is scaled down to `multiplier` times its norm after `referenceTokens` tokens of a
   * reference prompt, where it is larger (2.2).
   */
  | {
      readonly kind: "normalised";
      readonly multiplier: number;
      readonly referenceTokens: number;
      readonly everyTokens: number;
    }
  /** Sliding window by state difference: every `everyTokens` tokens a layer's state is that of its last `tokens` inputs alone (2.3). */
  | { readonly kind: "window"; readonly tokens: number; readonly everyTokens: number }
  /** LongMamba: dt is multiplied by a constant (2.4). */
  | { readonly kind: "longMamba"; readonly dtScale: number };

export const NO_CURE: CureSpec = { kind: "none" };

/** A cure in one word, the same for the same settings: part of names and of cells' ids. */
export function cureKey(cure: CureSpec): string {
  switch (cure.kind) {
    case "none":
      return "none";
    case "reduced":
      return `reduced-${cure.retention}-${cure.insertion}`;
    case "normalised":
      return `normalised-${cure.multiplier}-${cure.referenceTokens}-${cure.everyTokens}`;
    case "window":
      return `window-${cure.tokens}-${cure.everyTokens}`;
    case "longMamba":
      return `longmamba-${cure.dtScale}`;
  }
}
