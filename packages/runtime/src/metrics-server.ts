import { createHash, timingSafeEqual } from "node:crypto";
import { once } from "node:events";
import { createServer as createHttpServer, type RequestListener } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { SegueError } from "@segue/core";
import type { Registry } from "prom-client";
import { hostOf, requireSafeListener, type Security } from "./security.js";

export interface MetricsServerOptions extends Security {
  /** host:port; port 0 takes a free one. */
  readonly listen: string;
  readonly registry: Registry;
  /** Answers /healthz: 200 or 503. */
  readonly isHealthy: () => boolean;
}

export interface MetricsServer {
  readonly address: string;
  close(): Promise<void>;
}

/**
 * Serves /metrics (Prometheus text; needs the token if there is one) and /healthz (public), over HTTPS if there is a certificate.
 * @throws SegueError INSECURE_LISTENER, LISTEN_FAILED
 */
export async function startMetricsServer(options: MetricsServerOptions): Promise<MetricsServer> {
  const { listen, tls } = options;
  requireSafeListener(listen, options);
  const listener = requestListener(options);
  const server = tls?.cert && tls.key ? createHttpsServer({ cert: tls.cert, key: tls.key }, listener) : createHttpServer(listener);
  const host = hostOf(listen);
  server.listen(Number(listen.slice(listen.lastIndexOf(":") + 1)), host);
  try {
    await once(server, "listening");
  } catch (error) {
    throw new SegueError("LISTEN_FAILED", `Cannot listen on ${listen}.`, { status: "UNAVAILABLE", cause: error });
  }
  const { port } = server.address() as AddressInfo;
  return {
    address: host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function requestListener({ registry, isHealthy, token }: MetricsServerOptions): RequestListener {
  return (request, response) => {
    const answer = (status: number, body: string, type = "text/plain; charset=utf-8"): void => {
      response.writeHead(status, { "content-type": type }).end(body);
    };
    if (request.url === "/healthz") {
      if (isHealthy()) answer(200, "ok\n");
      else answer(503, "not serving\n");
    } else if (request.url !== "/metrics") {
      answer(404, "try /metrics or /healthz\n");
    } else if (token !== undefined && !sameText(request.headers.authorization ?? "", `Bearer ${token}`)) {
      answer(401, "this needs the cluster's token\n");
    } else {
      registry.metrics().then(
        (text) => answer(200, text, registry.contentType),
        () => answer(500, "the metrics could not be collected\n"),
      );
    }
  };
}

function sameText(a: string, b: string): boolean {
  const sha256 = (text: string): Buffer => createHash("sha256").update(text).digest();
  return timingSafeEqual(sha256(a), sha256(b));
}
