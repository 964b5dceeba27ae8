import { LineCounter, parseDocument, stringify } from "yaml";
import type { JobSpec } from "./job-spec.js";
import { specInvalid, validateJobSpec, type ParsedSpec } from "./validate.js";

const MAX_YAML_CHARACTERS = 1 << 20;

/**
 * Reads a job spec from YAML text.
 * @throws SegueError SPEC_INVALID: with line and column when the text is not YAML, else with every problem of the spec
 */
export function parseJobSpec(yamlText: string): ParsedSpec {
  if (yamlText.length > MAX_YAML_CHARACTERS) {
    throw specInvalid([
      { field: "", description: `is ${yamlText.length} characters long; a job spec has at most ${MAX_YAML_CHARACTERS}` },
    ]);
  }
  const lines = new LineCounter();
  const document = parseDocument(yamlText, { lineCounter: lines, prettyErrors: false });
  if (document.errors.length > 0) {
    throw specInvalid(
      document.errors.map(({ pos, message }) => {
        const { line, col } = lines.linePos(pos[0]);
        return { field: "", description: `line ${line}, column ${col}: ${message}` };
      }),
    );
  }
  return validateJobSpec(toPlain(document));
}

/** The spec as YAML text; `parseJobSpec` gives the same spec back. */
export function jobSpecToYaml(spec: JobSpec): string {
  return stringify(spec, { lineWidth: 0 });
}

function toPlain(document: ReturnType<typeof parseDocument>): unknown {
  try {
    return document.toJS() as unknown;
  } catch (cause) {
    // Aliases without an anchor, or too many of them.
    throw specInvalid([{ field: "", description: cause instanceof Error ? cause.message : String(cause) }]);
  }
}
