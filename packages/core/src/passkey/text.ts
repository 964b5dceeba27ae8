import type { PasskeyEvaluationSpec } from "../spec/job-spec.js";
import type { Random } from "../random.js";

/** The pieces of a passkey text, in the words of the paper (paper.md section 4.1) or of its published generator. */
export interface PasskeyTemplate {
  readonly prefix: string;
  readonly noise: string;
  readonly needle: (key: string) => string;
  readonly question: string;
  /** Stands between two blocks. */
  readonly separator: string;
}

const NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";
const needle = (key: string): string => `The passkey is ${key}. Remember it. ${key} is the passkey.`;

export const PASSKEY_TEMPLATES: Readonly<Record<PasskeyEvaluationSpec["template"], PasskeyTemplate>> = {
  paper: {
    prefix: "There is important info hidden inside a lot of irrelevant text. Find it and memorize it.\n\n",
    noise: NOISE,
    needle,
    question: "What is the passkey? The passkey is",
    // The paper prints the blocks as running text.
    separator: " ",
  },
  code: {
    prefix: "There is an important info hidden inside a lot of irrelevant text. Find it and memorize it.\n\n",
    noise: NOISE,
    needle,
    // The last block's newline and the question's own: an empty line comes before it.
    question: "\nWhat is the pass key? The passkey is",
    separator: "\n",
  },
};

/** A key of this many decimal digits, each drawn uniformly; leading zeros are kept. */
export function drawKey(random: Random, digits: number): string {
  let key = "";
  while (key.length < digits) key += String(random.below(10));
  return key;
}
