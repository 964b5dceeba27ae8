import { LineCounter, parseDocument, stringify } from "yaml";
import type { JobSpec } from "./job-spec.js";
import type { Violation } from "../errors.js";
import { specInvalid, validateJobSpec, type ParsedSpec } from "./validate.js";

const MAX_YAML_CHARACTERS = 1 << 20;

/**
 * Reads a job spec from YAML text.
 * @throws SegueError SPEC_INVALID: with line and column when the text is not YAML, else with every problem of the spec
 */
export function parseJobSpec(yamlText: string): ParsedSpec {
  return validateJobSpec(plainYaml(yamlText, specInvalid));
}

/**
 * YAML text as plain data, unchecked.
 * @param invalid makes the error to throw of what is wrong with the text, with line and column where they are known
 */
export function plainYaml(text: string, invalid: (violations: readonly Violation[]) => Error): unknown {
  if (text.length > MAX_YAML_CHARACTERS) {
    throw invalid([{ field: "", description: `is ${text.length} characters long; at most ${MAX_YAML_CHARACTERS} are read` }]);
  }
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  if (document.errors.length > 0) {
    throw invalid(
      document.errors.map(({ pos, message }) => {
        const { line, col } = lines.linePos(pos[0]);
        return { field: "", description: `line ${line}, column ${col}: ${message}` };
      }),
    );
  }
  try {
    return document.toJS() as unknown;
  } catch (cause) {
    // Aliases without an anchor, or too many of them.
    throw invalid([{ field: "", description: cause instanceof Error ? cause.message : String(cause) }]);
  }
}

/** The spec as YAML text; `parseJobSpec` gives the same spec back. */
export function jobSpecToYaml(spec: JobSpec): string {
  return stringify(spec, { lineWidth: 0 });
}
