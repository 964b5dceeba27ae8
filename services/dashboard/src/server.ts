import type { AddressInfo } from "node:net";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import fastifyStatic from "@fastify/static";
import { SegueError } from "@segue/core";
import { hostOf, type Logger, type Security } from "@segue/runtime";
import { fastify, type FastifyInstance } from "fastify";
import type { Redis } from "ioredis";
import { guardAccess, requireGuardedListener } from "./access.js";
import { addApi } from "./api.js";
import { LiveFeed } from "./live-feed.js";
import { DashboardStore } from "./store.js";

export interface DashboardOptions extends Security {
  /** host:port; port 0 takes a free one. */
  readonly listen: string;
  /** Of role "reader" or "producer"; the caller closes it after the dashboard. */
  readonly redis: Redis;
  readonly logger: Logger;
  /** How often Redis is read while somebody watches. @default 1000 */
  readonly intervalMs?: number;
}

export interface Dashboard {
  /** host:port */
  readonly address: string;
  readonly url: string;
  close(): Promise<void>;
}

const PUBLIC_DIR = fileURLToPath(new URL("../public", import.meta.url));
const UPLOT_DIR = dirname(fileURLToPath(import.meta.resolve("uplot/dist/uPlot.esm.js")));
const HTTP_STATUS: Partial<Record<SegueError["status"], number>> = {
  INVALID_ARGUMENT: 400,
  NOT_FOUND: 404,
  RESOURCE_EXHAUSTED: 429,
  UNAVAILABLE: 503,
};

/**
 * Serves the page and its data.
 * @throws SegueError INSECURE_LISTENER (reachable from other machines, but no token), LISTEN_FAILED
 */
export async function startDashboard(options: DashboardOptions): Promise<Dashboard> {
  const { listen, redis, logger, token, tls } = options;
  requireGuardedListener(listen, token);
  const https = tls?.cert && tls.key ? { cert: tls.cert, key: tls.key } : null;
  const app: FastifyInstance = fastify({ https, bodyLimit: 4_096, forceCloseConnections: true });
  const store = new DashboardStore(redis);
  const feed = new LiveFeed(store, logger, options.intervalMs === undefined ? {} : { intervalMs: options.intervalMs });

  guardAccess(app, { token, tls: https !== null });
  reportErrors(app, logger);
  // Names of files stay while their content changes with each release, so browsers ask each time; the answer is mostly 304.
  await app.register(fastifyStatic, { root: PUBLIC_DIR, cacheControl: true, maxAge: 0 });
  app.get("/vendor/uPlot.js", (_request, reply) => reply.sendFile("uPlot.esm.js", UPLOT_DIR));
  app.get("/vendor/uPlot.css", (_request, reply) => reply.sendFile("uPlot.min.css", UPLOT_DIR));
  // Healthy without Redis too: the page itself then says what is missing.
  app.get("/healthz", () => ({ serving: true, redis: redis.status === "ready" ? "up" : "away" }));
  addApi(app, store, feed, token !== undefined);

  const host = hostOf(listen);
  try {
    await app.listen({ host, port: Number(listen.slice(listen.lastIndexOf(":") + 1)) });
  } catch (error) {
    await app.close();
    throw new SegueError("LISTEN_FAILED", `Cannot listen on ${listen}.`, { status: "UNAVAILABLE", cause: error });
  }
  const { port } = app.server.address() as AddressInfo;
  const address = host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
  return {
    address,
    url: `${https ? "https" : "http"}://${address}/`,
    close: async () => {
      await feed.close();
      await app.close();
    },
  };
}

function reportErrors(app: FastifyInstance, logger: Logger): void {
  app.setErrorHandler((error: Error & { statusCode?: number; code?: string }, request, reply) => {
    if (error instanceof SegueError) {
      return reply.code(HTTP_STATUS[error.status] ?? 500).send({ code: error.code, message: error.message });
    }
    const status = error.statusCode ?? 500;
    if (status < 500) return reply.code(status).send({ code: error.code ?? "BAD_REQUEST", message: error.message });
    logger.error({ err: error, url: request.url }, "request failed");
    return reply.code(500).send({ code: "INTERNAL", message: "Something unexpected happened; see the dashboard's log." });
  });
  app.setNotFoundHandler((_request, reply) => reply.code(404).send({ code: "NOT_FOUND", message: "There is nothing here." }));
}
