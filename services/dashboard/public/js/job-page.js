import { Curves } from "./curves.js";
import { h, patchChildren } from "./dom.js";
import { ago, bytes, dateTime, digits, duration, percent, short, whole } from "./format.js";
import { HeatMap } from "./heatmap.js";
import { LossChart } from "./loss-chart.js";
import { membersPanel } from "./members.js";
import { digest, empty, etaSeconds, lossText, panel, phaseChip, progress } from "./parts.js";

const CHECKPOINTS_SHOWN = 50;

/** Everything about one job. */
export class JobPage {
  constructor(root, state, jobId) {
    this.root = root;
    this.state = state;
    this.jobId = jobId;
    this.curves = new Curves(jobId);
    this.heatMap = new HeatMap(jobId);
    this.lossChart = new LossChart();
    this.head = h("div", {});
    this.evaluation = h("div", {});
    this.members = h("div", {});
    this.rest = h("div.columns", {});
    this.curvesPanel = panel("Training", {}, this.curves.element);
    this.evaluation.addEventListener("change", (event) => this.heatMap.onChange(event.target) && this.render());
    this.evaluation.addEventListener("click", (event) => this.heatMap.onClick(event.target) && this.render());
    this.evaluation.addEventListener("keydown", (event) => this.heatMap.onKey(event));
  }

  onLive(topic, payload) {
    if (topic === "points") this.curves.add(payload);
    // The stream's first message about the job comes after its cursor is set, so nothing falls between it and what is loaded now.
    const back = (topic === "connection" && payload) || (topic === "redis" && payload.up);
    if (topic === "job" ? this.curves.series === undefined : back) void this.curves.load();
  }

  close() {
    this.curves.close();
    this.lossChart.close();
  }

  render() {
    const { job: detail, evaluations, losses } = this.state;
    if (detail === undefined || detail === null) {
      const nothing =
        detail === null
          ? empty("No such job", h("p", {}, "There is no job ", h("code", {}, this.jobId), "."), h("a", { href: "#/" }, "All jobs"))
          : h("p.loading", {}, "Waiting for data\u2026");
      patchChildren(this.root, nothing);
      return;
    }
    const { job } = detail;
    document.title = `${job.name || job.id} - Segue`;
    patchChildren(this.head, header(job), tiles(job));
    patchChildren(this.evaluation, this.heatMap.render(evaluations ?? []));
    patchChildren(this.members, membersPanel(detail.members));
    patchChildren(this.rest, checkpoints(detail.checkpoints), specification(detail.spec));
    if (this.head.parentElement !== this.root) {
      this.root.replaceChildren(this.head, this.curvesPanel, this.members, this.evaluation, this.lossChart.element, this.rest);
    }
    this.lossChart.render(losses ?? []);
  }
}

function header(job) {
  return h(
    "div.job-head",
    {},
    h(
      "nav.crumbs",
      { "aria-label": "Breadcrumb" },
      h("a", { href: "#/" }, "Jobs"),
      h("span", { "aria-hidden": "true" }, " / "),
      h("span.mono", {}, job.id),
    ),
    h("div.job-title", {}, h("h1", {}, job.name || job.id), phaseChip(job.phase)),
    job.reason ? h("p.reason", { "data-tone": job.phase === "FAILED" ? "bad" : undefined }, job.reason) : [],
    job.notDurable ? h("p.reason", { "data-tone": "bad" }, `Not durable: ${job.notDurable}`) : [],
    job.leftOut ? h("p.reason", {}, job.leftOut) : [],
    job.evaluationsNotQueued ? h("p.reason", { "data-tone": "bad" }, job.evaluationsNotQueued) : [],
    job.checkpointWarning ? h("p.reason", { "data-tone": "bad" }, job.checkpointWarning) : [],
    progress(job),
    h("p.sub", {}, progressWords(job)),
  );
}

function progressWords(job) {
  const words = [`step ${whole(job.step)} of ${whole(job.totalSteps)}`];
  if (job.totalSteps > 0) words.unshift(percent(job.step / job.totalSteps));
  if (job.totalTokens > 0) words.push(`${short(job.tokens)} of ${short(job.totalTokens)} tokens`);
  if (Number.isFinite(etaSeconds(job))) words.push(`${duration(etaSeconds(job))} left`);
  words.push(`submitted ${dateTime(job.submittedAtMs)}`, `updated ${ago(job.updatedAtMs)}`);
  return words.join(" \u00b7 ");
}

function tiles(job) {
  const running = job.phase === "RUNNING";
  const entries = [
    ["Loss", lossText(job)],
    ["Tokens/s", running ? short(job.tokensPerSecond ?? NaN) : "\u2013"],
    ["Learning rate", digits(job.learningRate, 3)],
    ["Gradient norm", digits(job.gradientNorm, 3)],
    ["Parameters", job.parameters > 0 ? short(job.parameters) : "\u2013"],
    ["Workers", whole(job.workers), job.engine],
    ["Documents", whole(job.documentsRead), job.documentsDroppedShort > 0 ? `${whole(job.documentsDroppedShort)} too short` : ""],
    ["Attempt", whole(job.attempt)],
  ];
  return h(
    "dl.tiles",
    {},
    entries.map(([name, value, note]) =>
      h("div.tile", {}, h("dt", {}, name), h("dd", {}, value), note ? h("dd.note", { title: note }, note) : []),
    ),
  );
}

function checkpoints(list) {
  if (list.length === 0) {
    return panel(
      "Checkpoints",
      {},
      empty(
        "No checkpoint yet",
        h("p", {}, "One is written at the end, on pause, and every ", h("code", {}, "checkpoints.everySteps"), " steps."),
      ),
    );
  }
  return panel(
    "Checkpoints",
    { extra: list.length > CHECKPOINTS_SHOWN ? `newest ${CHECKPOINTS_SHOWN} of ${list.length}` : `${list.length} kept` },
    h(
      "table.rows",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          ["Step", "Loss", "Size", "Digest", "Written"].map((title, index) =>
            h("th", { scope: "col", class: index < 3 ? "number" : undefined }, title),
          ),
        ),
      ),
      h(
        "tbody",
        {},
        list
          .slice(0, CHECKPOINTS_SHOWN)
          .map((checkpoint) =>
            h(
              "tr",
              { "data-key": `${checkpoint.step}` },
              h("th.number", { scope: "row" }, whole(checkpoint.step)),
              h("td.number", { "data-label": "Loss" }, digits(checkpoint.loss, 4)),
              h("td.number", { "data-label": "Size" }, bytes(checkpoint.sizeBytes)),
              h("td", { "data-label": "Digest" }, digest(checkpoint.digest)),
              h("td", { "data-label": "Written" }, ago(checkpoint.createdAtMs)),
            ),
          ),
      ),
    ),
  );
}

function specification(spec) {
  if (spec === null) return panel("Job spec", {}, empty("Not recorded"));
  return panel(
    "Job spec",
    { extra: "every default filled in" },
    h(
      "div.spec",
      { tabindex: 0, role: "group", "aria-label": "Job spec" },
      Object.entries(spec).map(([name, value]) =>
        value !== null && typeof value === "object" && !Array.isArray(value)
          ? h(
              "details",
              { open: true },
              h("summary", {}, name),
              h(
                "dl.fields",
                {},
                Object.entries(value).map(([key, entry]) => field(key, entry)),
              ),
            )
          : h("dl.fields", {}, field(name, value)),
      ),
    ),
  );
}

function field(name, value) {
  return [
    h("dt", {}, name),
    h("dd", {}, typeof value === "string" || typeof value === "number" ? String(value) : JSON.stringify(value)),
  ];
}
