import * as grpc from "@grpc/grpc-js";
import { ReflectionService } from "@grpc/reflection";
import { SegueError } from "@segue/core";
import { addService, encodedFileDescriptors, isServiceError, type DescService, type Handlers } from "@segue/protocol";
import { HealthImplementation } from "grpc-health-check";
import { limitRate, requireToken, type RateLimit } from "./call-guards.js";
import type { Logger } from "./logger.js";
import { hostOf, requireSafeListener, type Security } from "./security.js";
import { toServiceError } from "./service-error.js";

export interface ServiceRegistration<S extends DescService> {
  readonly service: S;
  readonly handlers: Handlers<S>;
}

export interface GrpcServerOptions<T extends readonly DescService[]> extends Security {
  /** host:port; port 0 takes a free one. */
  readonly listen: string;
  readonly services: { readonly [I in keyof T]: ServiceRegistration<T[I]> };
  readonly logger: Logger;
  /** Full names of services that need no token; health never does. */
  readonly publicServices?: readonly string[] | undefined;
  readonly rateLimit?: RateLimit | undefined;
}

export interface GrpcServer {
  /** host:port it listens on. */
  readonly address: string;
  readonly health: {
    /** What the health service answers for every service. Starts as serving. */
    set(serving: boolean): void;
  };
  /**
   * Health NOT_SERVING, no new calls, waits up to deadlineMs for the calls in flight, then cuts them off. Streams should be told to end
   * first. Idempotent.
   */
  close(deadlineMs: number): Promise<void>;
}

const HEALTH_SERVICE = "grpc.health.v1.Health";
const DEFAULT_RATE_LIMIT: RateLimit = { perSecond: 500, burst: 1_000 };
const SERVER_OPTIONS: grpc.ServerOptions = {
  // Requests are small: what is big is pulled, and so travels in responses.
  "grpc.max_receive_message_length": 4 * 2 ** 20,
  "grpc.max_send_message_length": 16 * 2 ** 20,
  "grpc.max_concurrent_streams": 1_000,
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
};

/**
 * Starts a server with health and reflection beside the services.
 * @throws SegueError INSECURE_LISTENER, LISTEN_FAILED
 */
export async function startGrpcServer<const T extends readonly DescService[]>(options: GrpcServerOptions<T>): Promise<GrpcServer> {
  const { listen, logger, token, tls } = options;
  requireSafeListener(listen, options);
  const registrations = options.services as readonly ServiceRegistration<DescService>[];
  const services = registrations.map(({ service }) => service);
  const publicServices = new Set([HEALTH_SERVICE, ...(options.publicServices ?? [])]);
  const interceptors = [limitRate(options.rateLimit ?? DEFAULT_RATE_LIMIT, publicServices)];
  if (token !== undefined) interceptors.unshift(requireToken(token, publicServices));

  const server = new grpc.Server({ ...SERVER_OPTIONS, interceptors });
  for (const { service, handlers } of registrations) {
    addService(server, service, handlers, { mapError: (error) => reportedError(error, service, logger) });
  }
  const healthNames = ["", ...services.map((service) => service.typeName)];
  const health = new HealthImplementation(Object.fromEntries(healthNames.map((name) => [name, "SERVING" as const])));
  health.addToServer(server);
  addReflection(server, services);

  const port = await bind(
    server,
    listen,
    tls?.cert && tls.key ? sslCredentials(tls.cert, tls.key) : grpc.ServerCredentials.createInsecure(),
  );
  const host = hostOf(listen);
  const setHealth = (serving: boolean): void => {
    for (const name of healthNames) health.setStatus(name, serving ? "SERVING" : "NOT_SERVING");
  };
  let closing: Promise<void> | undefined;
  return {
    address: host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`,
    health: { set: setHealth },
    close(deadlineMs) {
      setHealth(false);
      closing ??= shutDown(server, deadlineMs);
      return closing;
    },
  };
}

function sslCredentials(cert: Buffer, key: Buffer): grpc.ServerCredentials {
  return grpc.ServerCredentials.createSsl(null, [{ cert_chain: cert, private_key: key }], false);
}

function addReflection(server: grpc.Server, services: readonly DescService[]): void {
  // Reflection reads nothing of a package definition but its file descriptors, so one entry of the simplest kind carries them all.
  const definition = {
    format: "Protocol Buffer 3 EnumDescriptorProto" as const,
    type: {},
    fileDescriptorProtos: encodedFileDescriptors(services),
  };
  new ReflectionService({ segue: definition }, { services: services.map((service) => service.typeName) }).addToServer(server);
}

function bind(server: grpc.Server, listen: string, credentials: grpc.ServerCredentials): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(listen, credentials, (error, port) => {
      if (!error) resolve(port);
      else
        reject(
          new SegueError("LISTEN_FAILED", `Cannot listen on ${listen}: ${error.message}`, { status: "UNAVAILABLE", cause: error }),
        );
    });
  });
}

/** tryShutdown alone would wait for ever on one open stream. */
function shutDown(server: grpc.Server, deadlineMs: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => server.forceShutdown(), deadlineMs);
    server.tryShutdown(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}

function reportedError(error: unknown, service: DescService, logger: Logger): grpc.ServiceError {
  if (!(error instanceof SegueError) && !isServiceError(error))
    logger.error({ err: error, rpcService: service.typeName }, "a call failed");
  return toServiceError(error);
}
