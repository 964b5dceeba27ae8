/**
 * Asks this machine's own service for its health, for probes of containers: exit code 0 when serving. Reads the service's settings, and
 * so speaks TLS where the service does.
 */
import * as grpc from "@grpc/grpc-js";
import { service as healthService } from "grpc-health-check";
import { z } from "zod";
import { securityFromSettings } from "./security.js";
import { commonSettings, readSettings, settings } from "./settings.js";

const TIMEOUT_MS = 3_000;

interface HealthClient extends grpc.Client {
  check(
    request: { service: string },
    options: grpc.CallOptions,
    callback: (error: grpc.ServiceError | null, response?: { status: string }) => void,
  ): void;
}

const values = readSettings(z.object({ ...commonSettings, SEGUE_LISTEN: settings.SEGUE_LISTEN }));
const { tls } = securityFromSettings(values);
const credentials = tls?.cert ? grpc.credentials.createSsl(tls.ca ?? null) : grpc.credentials.createInsecure();
const Health = grpc.makeClientConstructor(healthService, "Health");
const port = values.SEGUE_LISTEN.slice(values.SEGUE_LISTEN.lastIndexOf(":") + 1);
const client = new Health(`127.0.0.1:${port}`, credentials, {
  "grpc.enable_http_proxy": 0,
  ...(tls?.serverName === undefined ? {} : { "grpc.ssl_target_name_override": tls.serverName }),
}) as unknown as HealthClient;

client.check({ service: "" }, { deadline: Date.now() + TIMEOUT_MS }, (error, response) => {
  if (error) console.error(error.message);
  process.exit(error === null && response?.status === "SERVING" ? 0 : 1);
});
