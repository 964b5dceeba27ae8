import { collectDefaultMetrics, Gauge, Registry } from "prom-client";
import { startMetricsServer, type MetricsServer } from "./metrics-server.js";
import type { Security } from "./security.js";

/** A number that a service shows beside its process metrics, one for each set of labels; asked for at every scrape. */
export interface ServiceGauge {
  /** Without the prefix `segue_`; ends with its unit. */
  readonly name: string;
  readonly help: string;
  readonly labels: readonly string[];
  readonly values: () => Iterable<{ readonly labels: Readonly<Record<string, string>>; readonly value: number }>;
}

/**
 * Serves a service's process metrics (CPU, memory, event-loop lag, garbage collection), labelled with its name, and its own; does nothing
 * when no address is given. /healthz turns to 503 when the signal aborts.
 * @throws SegueError INSECURE_LISTENER, LISTEN_FAILED
 */
export async function serveProcessMetrics(
  service: string,
  listen: string | undefined,
  security: Security,
  signal: AbortSignal,
  gauges: readonly ServiceGauge[] = [],
): Promise<MetricsServer | undefined> {
  if (listen === undefined) return undefined;
  const registry = new Registry();
  registry.setDefaultLabels({ service });
  collectDefaultMetrics({ register: registry });
  for (const gauge of gauges) register(registry, gauge);
  return startMetricsServer({ ...security, listen, registry, isHealthy: () => !signal.aborted });
}

function register(registry: Registry, { name, help, labels, values }: ServiceGauge): void {
  const gauge: Gauge = new Gauge({
    name: `segue_${name}`,
    help,
    labelNames: labels,
    registers: [registry],
    collect() {
      // What is gone since the last scrape must not be shown any more.
      gauge.reset();
      for (const { labels: labelled, value } of values()) gauge.set(labelled, value);
    },
  });
}
