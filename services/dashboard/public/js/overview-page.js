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
    /** Finished jobs that were shown once stay, by id: newer ones must not push them off the page. */
    this.finished = new Map();
    /** Where older ones go on; undefined: where the server's list ends. */
    this.older = undefined;
    this.asking = "";
    document.title = "Segue";
    this.onClick = (event) => event.target.closest?.("[data-older]") && void this.showOlder();
    root.addEventListener("click", this.onClick);
  }

  close() {
    this.root.removeEventListener("click", this.onClick);
  }

  /** Asks for the next page of finished jobs. */
  async showOlder() {
    const from = this.nextOlder();
    if (!from || this.asking === "asking") return;
    this.asking = "asking";
    this.render();
    try {
      const response = await fetch(`/api/jobs?older=${encodeURIComponent(from)}`);
      if (!response.ok) throw new Error(String(response.status));
      const { jobs, counts } = await response.json();
      for (const job of jobs) this.finished.set(job.id, job);
      this.older = counts.older;
      this.asking = "";
    } catch {
      this.asking = "failed";
    }
    this.render();
  }

  /** How many finished jobs are not shown, and the way to them. */
  olderJobs(jobs) {
    const { jobCounts } = this.state;
    const hidden = (jobCounts?.total ?? 0) - jobs.length;
    if (hidden <= 0 || !this.nextOlder()) return [];
    const label = this.asking === "asking" ? "Asking\u2026" : "Show older jobs";
    return h(
      "p.older",
      {},
      `${whole(jobs.length)} of ${whole(jobCounts.total)} jobs are shown; ${whole(hidden)} older finished ones are not. `,
      h("button.button", { type: "button", "data-older": true, disabled: this.asking === "asking" }, label),
      this.asking === "failed" ? h("span.warn", { role: "status" }, " The server did not answer; try again.") : [],
    );
  }

  nextOlder() {
    return this.older === undefined ? this.state.jobCounts?.older : this.older;
  }

  /** What is not finished first, then what is, each newest first. */
  shownJobs() {
    const jobs = this.state.jobs;
    for (const job of jobs) if (isFinished(job)) this.finished.set(job.id, job);
    const finished = [...this.finished.values()].sort((a, b) => b.submittedAtMs - a.submittedAtMs || (a.id < b.id ? 1 : -1));
    return [...jobs.filter((job) => !isFinished(job)), ...finished];
  }

  render() {
    const { workers, evaluators, queues, jobCounts } = this.state;
    if (this.state.jobs === undefined) {
      patchChildren(this.root, h("p.loading", {}, "Waiting for data\u2026"));
      return;
    }
    const jobs = this.shownJobs();
    const content = jobs.length > 0 ? [jobTable(jobs), this.olderJobs(jobs)] : noJobs();
    patchChildren(
      this.root,
      h("h1.visually-hidden", {}, "Overview"),
      panel("Jobs", { extra: jobs.length > 0 ? summary(jobs, jobCounts) : [] }, content),
      h(
        "div.columns",
        {},
        panel("Workers", { extra: workers?.length ? `${workers.length} attached` : [] }, workerTable(workers ?? [], jobs)),
        panel("Evaluation", {}, queueTable(queues ?? {}), evaluatorList(evaluators ?? [])),
      ),
    );
  }
}

/** A job of this phase never runs again. */
function isFinished({ phase }) {
  return ["SUCCEEDED", "CANCELLED", "FAILED"].includes(phase) || !phase;
}

function summary(jobs, counts) {
  const waiting = jobs.filter((job) => !isFinished(job) && job.phase !== "RUNNING").length;
  const total = counts ? [`${whole(counts.total)} in all`] : [];
  return [runningSummary(jobs), ...(waiting > 0 ? [`${whole(waiting)} waiting or paused`] : []), ...total].join(" \u00b7 ");
}

function runningSummary(jobs) {
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
