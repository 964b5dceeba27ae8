/** Prompts that one cell reads at once: few enough for a large model's activations, and for little to be lost when it is cut off. */
const PROMPTS_PER_CELL = 4;

export interface PromptPart {
  /** The cell's name among the evaluation's. */
  readonly part: string;
  readonly firstPrompt: number;
  readonly prompts: number;
}

export function promptParts(prompts: number): PromptPart[] {
  return Array.from({ length: Math.ceil(prompts / PROMPTS_PER_CELL) }, (_, index) => {
    const firstPrompt = index * PROMPTS_PER_CELL;
    const own = Math.min(PROMPTS_PER_CELL, prompts - firstPrompt);
    return { part: `prompts-${firstPrompt}-${own}`, firstPrompt, prompts: own };
  });
}
