import { collectDefaultMetrics, Registry } from "prom-client";
import { startMetricsServer, type MetricsServer } from "./metrics-server.js";
import type { Security } from "./security.js";

/**
 * Serves a service's process metrics (CPU, memory, event-loop lag, garbage collection), labelled with its name; does nothing when no
 * address is given. /healthz turns to 503 when the signal aborts.
 * @throws SegueError INSECURE_LISTENER, LISTEN_FAILED
 */
export async function serveProcessMetrics(
  service: string,
  listen: string | undefined,
  security: Security,
  signal: AbortSignal,
): Promise<MetricsServer | undefined> {
  if (listen === undefined) return undefined;
  const registry = new Registry();
  registry.setDefaultLabels({ service });
  collectDefaultMetrics({ register: registry });
  return startMetricsServer({ ...security, listen, registry, isHealthy: () => !signal.aborted });
}
