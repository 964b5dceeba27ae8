/**
 * The server's event stream. Keeps the newest payload of every topic in `state` and tells `onChange(topic, payload)`; connects again by
 * itself, for ever.
 */
export class Live {
  constructor(onChange) {
    this.onChange = onChange;
    this.state = {};
    this.connected = false;
    this.heardAtMs = 0;
    this.jobId = undefined;
  }

  /** Follows the overview and, if given, the details of one job. */
  watch(jobId) {
    if (this.source && this.jobId === jobId && this.source.readyState !== EventSource.CLOSED) return;
    this.source?.close();
    clearTimeout(this.retry);
    this.jobId = jobId;
    for (const topic of ["job", "evaluations", "losses", "points"]) delete this.state[topic];
    this.#open();
  }

  #open() {
    const source = new EventSource(this.jobId === undefined ? "/api/events" : `/api/events?job=${encodeURIComponent(this.jobId)}`);
    this.source = source;
    source.onopen = () => this.#setConnected(true);
    source.onerror = () => {
      this.#setConnected(false);
      void sendToLoginIfNeeded();
      // A browser gives up after an answer other than 200, for instance of a proxy whose server restarts.
      if (source.readyState === EventSource.CLOSED) this.retry = setTimeout(() => source === this.source && this.#open(), 3000);
    };
    for (const topic of [
      "redis",
      "jobs",
      "jobCounts",
      "workers",
      "evaluators",
      "queues",
      "job",
      "evaluations",
      "losses",
      "points",
    ]) {
      source.addEventListener(topic, (event) => {
        if (source !== this.source) return;
        const payload = JSON.parse(event.data);
        this.heardAtMs = Date.now();
        if (topic !== "points") this.state[topic] = payload;
        this.onChange(topic, payload);
      });
    }
  }

  #setConnected(connected) {
    this.connected = connected;
    this.onChange("connection", connected);
  }
}

/** An expired session shows only as a failed stream; asking once tells which it is. */
export async function sendToLoginIfNeeded() {
  try {
    const response = await fetch("/api/session");
    if (response.status === 401) location.assign("/login");
    return response.ok ? await response.json() : undefined;
  } catch {
    return undefined;
  }
}
