import { SegueError } from "../errors.js";

/** The error for a part of a tokenizer.json whose ids would not surely be those of the Python library. */
export function unsupported(component: string): SegueError {
  return new SegueError(
    "TOKENIZER_UNSUPPORTED",
    `This tokenizer.json uses ${component}, which Segue cannot compute exactly; choose another tokenizer.`,
  );
}

/** The error for what is no usable tokenizer.json at all. */
export function invalid(reason: string, cause?: unknown): SegueError {
  return new SegueError("TOKENIZER_INVALID", `Not a usable tokenizer.json: ${reason}.`, { cause });
}
