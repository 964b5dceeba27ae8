import { evaluationHead, type EvaluationHead, type Hash } from "./evaluation-head.js";
import { numberList, numberOrNull, numberOrZero, objectOrEmpty, parsedJson, textOrEmpty } from "./redis-values.js";

/** An evaluation as Redis has it; docs/reference/redis.md describes both hashes. */
export interface EvaluationRecord extends EvaluationHead {
  /** Context lengths in tokens. */
  readonly lengths: readonly number[];
  readonly depths: readonly number[];
  readonly samples: number;
  readonly digits: number;
  readonly seed: number;
  readonly template: string;
  readonly carryState: boolean;
  /** Over all cells, once it is done. */
  readonly accuracy: number | null;
  readonly createdAtMs: number;
  readonly updatedAtMs: number;
  readonly cells: readonly EvaluationCellRecord[];
}

export interface EvaluationCellRecord {
  readonly length: number;
  readonly depth: number;
  readonly correct: number;
  readonly samples: number;
  readonly ms: number;
  /** The first few. */
  readonly answers: readonly { readonly expected: string; readonly decoded: string }[];
}

/** @param cells the hash `<length>:<depth>` -> JSON */
export function parseEvaluation(evaluationId: string, hash: Hash, cells: Hash): EvaluationRecord {
  return {
    ...evaluationHead(evaluationId, hash),
    lengths: numberList(parsedJson(hash["lengths"])),
    depths: numberList(parsedJson(hash["depths"])),
    samples: numberOrZero(hash["samples"]),
    digits: numberOrZero(hash["digits"]),
    seed: numberOrZero(hash["seed"]),
    template: hash["template"] ?? "",
    carryState: hash["carryState"] !== "false" && hash["carryState"] !== "0",
    accuracy: numberOrNull(hash["accuracy"]),
    createdAtMs: numberOrZero(hash["createdAtMs"]),
    updatedAtMs: numberOrZero(hash["updatedAtMs"]),
    cells: Object.entries(cells).map(([field, value]) => parseCell(field, value)),
  };
}

function parseCell(field: string, value: string): EvaluationCellRecord {
  const [length, depth] = field.split(":");
  const cell = objectOrEmpty(parsedJson(value));
  const answers = Array.isArray(cell["answers"]) ? cell["answers"].map(objectOrEmpty) : [];
  return {
    length: numberOrZero(length),
    depth: numberOrZero(depth),
    correct: numberOrZero(cell["correct"]),
    samples: numberOrZero(cell["samples"]),
    ms: numberOrZero(cell["ms"]),
    answers: answers.map((answer) => ({ expected: textOrEmpty(answer["expected"]), decoded: textOrEmpty(answer["decoded"]) })),
  };
}
