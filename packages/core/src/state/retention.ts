/**
 * What of the first token's input is left after a number of tokens: the product of their decays, exp(A sum dt) (paper.md section 1.3, M4). A
 * reduced retention (2.1) takes its part from every token.
 * @param a A of the head, negative
 * @param dtSum of the tokens
 */
export function firstTokenRetention(a: number, dtSum: number, tokens = 0, logRetention = 0): number {
  return Math.exp(tokens * logRetention + a * dtSum);
}
