import { h } from "./dom.js";
import { contextLength, duration, percent, whole } from "./format.js";
import { chip, command, empty, panel } from "./parts.js";

const STATUS_TONES = { done: "done", running: "good", queued: "wait", failed: "bad" };

/** The passkey heat map: one table cell per context length and depth, for one evaluation and checkpoint at a time. */
export class HeatMap {
  constructor(jobId) {
    this.jobId = jobId;
    /** What the person chose; undefined follows the newest. */
    this.name = undefined;
    this.cure = undefined;
    this.evaluationId = undefined;
    this.cell = undefined;
  }

  render(evaluations) {
    if (evaluations.length === 0) return panel("Passkey retrieval", {}, noEvaluations(this.jobId));
    const names = [...new Set(evaluations.map((evaluation) => evaluation.name))];
    const name = names.includes(this.name) ? this.name : names[0];
    const named = evaluations.filter((evaluation) => evaluation.name === name);
    const cures = [...new Set(named.map((evaluation) => evaluation.cure))].sort(noneFirst);
    const cure = cures.includes(this.cure) ? this.cure : cures[0];
    const series = named.filter((evaluation) => evaluation.cure === cure);
    const shown = series.find((evaluation) => evaluation.id === this.evaluationId) ?? newestWithCells(series);
    return panel(
      "Passkey retrieval",
      { extra: chip(shown.status || "queued", STATUS_TONES[shown.status] ?? "wait") },
      this.#controls({ names, name, cures, cure, series, shown }),
      this.#grid(shown),
      shown.reason ? h("p.hint.bad", { "data-key": "reason" }, shown.reason) : [],
      this.#explanation(shown),
    );
  }

  /** @returns whether the event was for the heat map */
  onChange(target) {
    if (target.name === "evaluation" || target.name === "cure") {
      this[target.name === "cure" ? "cure" : "name"] = target.value;
      this.evaluationId = undefined;
    } else if (target.name === "checkpoint") this.evaluationId = target.value;
    else return false;
    this.cell = undefined;
    return true;
  }

  onClick(target) {
    const { cell, evaluation } = target.closest("[data-cell], [data-evaluation]")?.dataset ?? {};
    if (cell !== undefined) this.cell = this.cell === cell ? undefined : cell;
    else if (evaluation !== undefined) this.evaluationId = evaluation;
    else return false;
    return true;
  }

  /** Arrow keys walk through the grid, whose cells share one tab stop. */
  onKey(event) {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const button = event.target.closest?.("[data-cell]");
    if (!step || !button) return;
    const row = Number(button.dataset.row) + step[0];
    const column = Number(button.dataset.column) + step[1];
    const next = button.closest("table").querySelector(`[data-row="${row}"][data-column="${column}"]`);
    if (!next) return;
    event.preventDefault();
    next.focus();
  }

  #controls({ names, name, cures, cure, series, shown }) {
    const index = series.indexOf(shown);
    const stepTo = (label, evaluation) =>
      h(
        "button.step",
        { type: "button", disabled: !evaluation, "data-evaluation": evaluation?.id, "aria-label": label },
        label === "Older checkpoint" ? "\u2039" : "\u203a",
      );
    return h(
      "div.controls",
      {},
      names.length > 1 ? selection("Evaluation", names, name) : [],
      cures.length > 1 ? selection("Cure", cures, cure) : [],
      h(
        "label",
        {},
        "Checkpoint ",
        h(
          "select",
          { name: "checkpoint", "data-value": shown.id },
          series.map((evaluation) => choice(evaluation.id, checkpointWords(evaluation), evaluation === shown)),
        ),
      ),
      h("span.stepper", {}, stepTo("Older checkpoint", series[index + 1]), stepTo("Newer checkpoint", series[index - 1])),
      h(
        "span.sub",
        {},
        `${shown.samples} prompts a cell, ${shown.digits} digits, `,
        shown.carryState ? "state carried" : "state reset at segment boundaries",
        shown.cure === "none" ? "" : `, cure ${shown.cure}`,
      ),
    );
  }

  #grid(evaluation) {
    const cells = new Map(evaluation.cells.map((cell) => [`${cell.length}:${cell.depth}`, cell]));
    const stop = this.cell ?? `${evaluation.lengths[0]}:${evaluation.depths[0]}`;
    return h(
      "div.scroll",
      {},
      h(
        "table.heatmap",
        {},
        h("caption.visually-hidden", {}, `Passkey accuracy at step ${evaluation.step} by context length and depth of the key`),
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            h("td.corner", {}, "depth"),
            evaluation.lengths.map((length) => h("th", { scope: "col", title: `${whole(length)} tokens` }, contextLength(length))),
          ),
        ),
        h(
          "tbody",
          {},
          evaluation.depths.map((depth, row) =>
            h(
              "tr",
              {},
              h("th", { scope: "row" }, percent(depth)),
              evaluation.lengths.map((length, column) => {
                const key = `${length}:${depth}`;
                return h("td", {}, this.#cellButton(cells.get(key), { key, row, column, length, depth, stop: key === stop }));
              }),
            ),
          ),
        ),
        h(
          "tfoot",
          {},
          h(
            "tr",
            {},
            h("th", { scope: "row" }, "mean"),
            evaluation.lengths.map((length) =>
              h("td", {}, percent(accuracy(evaluation.cells.filter((cell) => cell.length === length)))),
            ),
          ),
        ),
      ),
      h("p.axis", {}, "context length in tokens"),
    );
  }

  #cellButton(cell, { key, row, column, length, depth, stop }) {
    const share = cell ? accuracy([cell]) : NaN;
    const where = `${whole(length)} tokens, depth ${percent(depth)}`;
    return h(
      "button.cell",
      {
        type: "button",
        "data-cell": key,
        "data-row": row,
        "data-column": column,
        "data-state": cell ? undefined : "pending",
        "data-tone": tone(share),
        "aria-pressed": key === this.cell ? "true" : "false",
        "aria-label": cell ? `${where}: ${percent(share)}, ${cell.correct} of ${cell.samples}` : `${where}: not evaluated yet`,
        tabindex: stop ? 0 : -1,
        vars: { "--accuracy": Number.isFinite(share) ? `${share * 100}%` : "0%" },
      },
      h("b", {}, cell ? percent(share) : "\u00b7"),
      h("small", {}, cell ? `${cell.correct}/${cell.samples}` : "pending"),
    );
  }

  #explanation(evaluation) {
    const cell = evaluation.cells.find(({ length, depth }) => `${length}:${depth}` === this.cell);
    if (!cell) {
      return h(
        "p.hint",
        { "data-key": "hint" },
        "Share of prompts whose key comes back, n below it. Choose a cell to see wrong answers.",
      );
    }
    const summary = `${whole(cell.length)} tokens, depth ${percent(cell.depth)}: ${cell.correct} of ${cell.samples} right, in ${duration(cell.ms / 1000)}.`;
    return h(
      "div.answers",
      { "data-key": "answers", role: "status" },
      h("p", {}, summary),
      cell.wrong.length > 0
        ? h(
            "ul",
            {},
            cell.wrong.map(({ expected, decoded }) =>
              h("li", {}, "expected ", h("code", {}, expected), ", got ", h("code", {}, decoded || "nothing")),
            ),
          )
        : [],
    );
  }
}

/** Which text colour is readable on a cell; the colours of light and dark theme turn at different shares. */
function tone(share) {
  if (!(share >= 0.53)) return "low";
  return share < 0.75 ? "middle" : "high";
}

/** A grid that is just being filled is worth showing, one that has not begun is not when an older one is there. */
function newestWithCells(series) {
  return series.find((evaluation) => evaluation.cells.length > 0) ?? series[0];
}

function selection(title, names, chosen) {
  return h(
    "label",
    {},
    `${title} `,
    h(
      "select",
      { name: title.toLowerCase(), "data-value": chosen },
      names.map((name) => choice(name, name, name === chosen)),
    ),
  );
}

function noneFirst(a, b) {
  return Number(b === "none") - Number(a === "none") || a.localeCompare(b);
}

function choice(value, text, selected) {
  return h("option", { value, selected }, text);
}

function checkpointWords(evaluation) {
  const share = accuracy(evaluation.cells);
  return `step ${whole(evaluation.step)}${Number.isFinite(share) ? `, mean ${percent(share)}` : ", pending"}`;
}

function accuracy(cells) {
  const samples = cells.reduce((sum, cell) => sum + cell.samples, 0);
  return samples > 0 ? cells.reduce((sum, cell) => sum + cell.correct, 0) / samples : NaN;
}

function noEvaluations(jobId) {
  return empty(
    "No evaluations yet",
    h("p", {}, "They run on checkpoints when the job spec has ", h("code", {}, "evaluations"), ", or when asked for:"),
    command(`npx segue eval ${jobId}`),
  );
}
