import { h, patchChildren } from "./dom.js";
import { ago, bytes, digits, duration, percent, ranges, short, whole } from "./format.js";
import { chip, command, empty, etaSeconds, gpuTexts, lossText, panel, phaseChip, progress, slowChip } from "./parts.js";

/** Heartbeats are published about every second; older ones than this are worth a look. */
const STALE_MS = 10_000;

/** Jobs, workers and the evaluation queue. */
export class OverviewPage {
  constructor(root, state) {
    this.root = root;
    this.state = state;
    document.title = "Segue";
  }

  render() {
    const { jobs, workers, evaluators, queues } = this.state;
    if (jobs === undefined) {
      patchChildren(this.root, h("p.loading", {}, "Waiting for data\u2026"));
      return;
    }
    patchChildren(
      this.root,
      h("h1.visually-hidden", {}, "Overview"),
      panel("Jobs", { extra: jobs.length > 0 ? summary(jobs) : [] }, jobs.length > 0 ? jobTable(jobs) : noJobs()),
      h(
        "div.columns",
        {},
        panel("Workers", { extra: workers?.length ? `${workers.length} attached` : [] }, workerTable(workers ?? [], jobs)),
        panel("Evaluation", {}, queueTable(queues ?? {}), evaluatorList(evaluators ?? [])),
      ),
    );
  }
}

function summary(jobs) {
  const running = jobs.filter((job) => job.phase === "RUNNING");
  const speed = running.reduce((sum, job) => sum + (job.tokensPerSecond ?? 0), 0);
  return running.length > 0 ? `${running.length} running, ${short(speed)} tokens/s` : "none running";
}

function noJobs() {
  return empty(
    "No jobs yet",
    h("p", {}, "Submit a recipe and follow it here:"),
    command("npx segue submit recipes/passkey-demo.yaml --watch"),
    h("p", {}, "No cluster yet either? This starts one on this machine:"),
    command("npx segue cluster up"),
  );
}

function jobTable(jobs) {
  return h(
    "table.rows.jobs",
    {},
    h("thead", {}, h("tr", {}, ["Job", "Phase", "Progress", "Loss", "Tokens/s", "ETA", "Workers", "Submitted"].map(headCell))),
    h("tbody", {}, jobs.map(jobRow)),
  );
}

function headCell(title) {
  const numeric = [
    "Loss",
    "Tokens/s",
    "ETA",
    "Workers",
    "ms a shard",
    "Step",
    "Memory",
    "Waiting",
    "Active",
    "Failed",
    "Done",
  ].includes(title);
  return h("th", { scope: "col", class: numeric ? "number" : undefined }, title);
}

function jobRow(job) {
  const share = job.totalSteps > 0 ? job.step / job.totalSteps : NaN;
  const running = job.phase === "RUNNING";
  return h(
    "tr",
    { "data-key": job.id },
    h(
      "th.job-name",
      { scope: "row" },
      h("a", { href: `#/jobs/${encodeURIComponent(job.id)}` }, job.name || job.id),
      h("span.sub.mono", {}, job.id),
    ),
    h(
      "td",
      { "data-label": "Phase" },
      phaseChip(job.phase),
      job.reason ? h("span.sub.reason", { title: job.reason }, job.reason) : [],
    ),
    h(
      "td.job-progress",
      { "data-label": "Progress" },
      progress(job),
      h("span.sub", {}, `${percent(share)} \u00b7 step ${whole(job.step)} of ${whole(job.totalSteps)}`),
    ),
    h("td.number", { "data-label": "Loss" }, lossText(job)),
    h("td.number", { "data-label": "Tokens/s" }, running ? short(job.tokensPerSecond ?? NaN) : "\u2013"),
    h("td.number", { "data-label": "ETA" }, duration(etaSeconds(job))),
    h("td.number", { "data-label": "Workers" }, whole(job.workers)),
    h("td", { "data-label": "Submitted" }, ago(job.submittedAtMs)),
  );
}

function workerTable(workers, jobs) {
  if (workers.length === 0) {
    return empty(
      "No workers attached",
      h("p", {}, "A cluster on this machine, workers included:"),
      command("npx segue cluster up"),
    );
  }
  const nameOf = new Map(jobs.map((job) => [job.id, job.name]));
  return h(
    "table.rows.workers",
    {},
    h("thead", {}, h("tr", {}, ["Worker", "State", "Job", "Shards", "ms a shard", "Step", "Memory", "Heartbeat"].map(headCell))),
    h(
      "tbody",
      {},
      workers.map((worker) => workerRow(worker, nameOf)),
    ),
  );
}

function workerRow(worker, nameOf) {
  const stale = Date.now() - worker.seenAtMs > STALE_MS;
  const tone = stale ? "bad" : worker.jobId ? "good" : "off";
  return h(
    "tr",
    { "data-key": worker.id },
    h("th", { scope: "row" }, worker.name, h("span.sub", {}, worker.detail || worker.engine), gpuLine(worker.gpu)),
    h("td", { "data-label": "State" }, chip(stale ? "silent" : worker.state || "attached", tone), slowChip(worker.pace)),
    h(
      "td.clip",
      { "data-label": "Job" },
      worker.jobId
        ? h("a", { href: `#/jobs/${encodeURIComponent(worker.jobId)}` }, nameOf.get(worker.jobId) || worker.jobId)
        : h("span.muted", {}, "idle"),
    ),
    h("td.mono", { "data-label": "Shards" }, ranges(worker.shards)),
    h("td.number", { "data-label": "ms a shard" }, digits(worker.pace.shardMs || NaN, 3)),
    h("td.number", { "data-label": "Step" }, worker.jobId ? whole(worker.step) : "\u2013"),
    h("td.number", { "data-label": "Memory" }, bytes(worker.rssBytes)),
    h("td", { "data-label": "Heartbeat", class: stale ? "warn" : undefined }, ago(worker.seenAtMs)),
  );
}

function gpuLine(gpu) {
  if (!gpu) return [];
  const { doing, memory, title } = gpuTexts(gpu);
  return h("span.sub.gpu", { title }, `${doing} \u00b7 ${memory}`);
}

function queueTable(queues) {
  const rows = [
    ["Cells", queues["segue-cells"] ?? {}],
    ["Heat maps", queues["segue-heatmaps"] ?? {}],
  ];
  return h(
    "table.rows.queue",
    {},
    h("thead", {}, h("tr", {}, ["Queue", "Waiting", "Active", "Failed", "Done"].map(headCell))),
    h(
      "tbody",
      {},
      rows.map(([name, counts]) => {
        const sum = (...states) => states.reduce((total, state) => total + (counts[state] ?? 0), 0);
        return h(
          "tr",
          {},
          h("th", { scope: "row" }, name),
          h("td.number", { "data-label": "Waiting" }, whole(sum("waiting", "prioritized", "delayed", "waiting-children"))),
          h("td.number", { "data-label": "Active" }, whole(sum("active"))),
          h("td.number", { "data-label": "Failed", class: sum("failed") > 0 ? "number bad" : "number" }, whole(sum("failed"))),
          h("td.number", { "data-label": "Done" }, whole(sum("completed"))),
        );
      }),
    ),
  );
}

function evaluatorList(evaluators) {
  if (evaluators.length === 0) {
    return empty(
      "No evaluator",
      h("p", {}, "Queued cells wait until one is started; ", h("code", {}, "segue cluster up"), " includes one."),
    );
  }
  return h(
    "ul.evaluators",
    {},
    evaluators.map((evaluator) => {
      const stale = Date.now() - evaluator.seenAtMs > STALE_MS;
      const tone = stale ? "bad" : evaluator.cell ? "good" : "off";
      return h(
        "li",
        { "data-key": evaluator.name },
        h("div", {}, h("strong", {}, evaluator.name), " ", chip(stale ? "silent" : evaluator.state || "idle", tone)),
        h(
          "span.sub",
          {},
          [evaluator.cell || "waiting for a cell", evaluator.engine, ago(evaluator.seenAtMs)].filter(Boolean).join(" \u00b7 "),
        ),
      );
    }),
  );
}
