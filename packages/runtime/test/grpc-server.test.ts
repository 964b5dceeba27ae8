import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { SegueError } from "@segue/core";
import { Jobs, Tensors, TensorRegistry, tensorsHandlers, type Handlers } from "@segue/protocol";
import { PATIENCE_MS } from "../../../test/helpers/patience.js";
import { service as healthService } from "grpc-health-check";
import {
  connectClient,
  createCertificates,
  createLogger,
  fromServiceError,
  securityFromSettings,
  startGrpcServer,
  type GrpcServer,
  type GrpcServerOptions,
} from "../src/index.js";

const TOKEN = "a-token-of-decent-length";
const logger = createLogger("test", "silent");

describe("startGrpcServer", () => {
  const cleanups: (() => unknown)[] = [];
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  });

  const start = async (
    some: Partial<Handlers<typeof Jobs>> = {},
    options: Partial<GrpcServerOptions<readonly []>> = {},
  ): Promise<GrpcServer> => {
    const registry = new TensorRegistry();
    const server = await startGrpcServer({
      listen: "127.0.0.1:0",
      logger,
      ...options,
      services: [
        { service: Jobs, handlers: jobsHandlers(some) },
        { service: Tensors, handlers: tensorsHandlers(registry) },
      ],
    });
    cleanups.push(() => server.close(0));
    return server;
  };
  const jobsClient = (...args: Parameters<typeof connectClient> extends [unknown, ...infer Rest] ? Rest : never) => {
    const client = connectClient(Jobs, ...args);
    cleanups.push(() => client.close());
    return client;
  };
  const temporaryFolder = (): string => {
    const folder = mkdtempSync(join(tmpdir(), "segue-runtime-"));
    cleanups.push(() => rmSync(folder, { recursive: true }));
    return folder;
  };

  it("carries code, message and violations of a SegueError to the caller", async () => {
    const violations = [{ field: "tbptt.segmentTokens", description: "must be positive" }];
    const server = await start({
      submitJob: async () => {
        throw new SegueError("SPEC_INVALID", "The job spec is not valid.", { violations });
      },
      getJob: async () => {
        throw new SegueError("BUSY", "Try later.", { status: "UNAVAILABLE", retryable: true });
      },
    });
    const client = jobsClient(server.address);
    const error = fromServiceError(await client.submitJob({}).catch((caught: unknown) => caught));
    assert.equal(error.code, "SPEC_INVALID");
    assert.equal(error.status, "INVALID_ARGUMENT");
    assert.equal(error.message, "The job spec is not valid.");
    assert.deepEqual(error.violations, violations);
    assert.equal(error.retryable, false);
    const busy = fromServiceError(await client.getJob({}).catch((caught: unknown) => caught));
    assert.equal(busy.code, "BUSY");
    assert.equal(busy.retryable, true);
  });

  it("survives hundreds of long violations", async () => {
    const violations = Array.from({ length: 500 }, (_, i) => ({ field: `field${i}`, description: "x".repeat(1_000) }));
    const server = await start({
      submitJob: async () => {
        throw new SegueError("SPEC_INVALID", "m".repeat(10_000), { violations });
      },
    });
    const error = fromServiceError(
      await jobsClient(server.address)
        .submitJob({})
        .catch((caught: unknown) => caught),
    );
    assert.equal(error.code, "SPEC_INVALID");
    assert.ok(error.violations && error.violations.length > 10);
  });

  it("says nothing about an unexpected error", async () => {
    const server = await start({
      getJob: async () => {
        throw new Error("secret");
      },
    });
    const error = fromServiceError(
      await jobsClient(server.address)
        .getJob({})
        .catch((caught: unknown) => caught),
    );
    assert.equal(error.code, "INTERNAL");
    assert.doesNotMatch(error.message, /secret/);
  });

  it("refuses calls without the token or with another, unary and streaming", async () => {
    const server = await start({ getJob: async () => ({ job: { jobId: "x" } }) }, { token: TOKEN });
    for (const token of [undefined, "another-token-of-decent-length", `${TOKEN}x`]) {
      const client = jobsClient(server.address, { token });
      await assert.rejects(client.getJob({}), { code: grpc.status.UNAUTHENTICATED });
      await assert.rejects(client.watchJob({})[Symbol.asyncIterator]().next(), { code: grpc.status.UNAUTHENTICATED });
    }
    const { job } = await jobsClient(server.address, { token: TOKEN }).getJob({});
    assert.equal(job?.jobId, "x");
  });

  it("answers health checks without a token, per service, and turns them over", async () => {
    const server = await start({}, { token: TOKEN });
    const check = await healthChecker(server.address);
    cleanups.push(check.close);
    assert.equal(await check.status(""), "SERVING");
    assert.equal(await check.status("segue.v1.Jobs"), "SERVING");
    server.health.set(false);
    assert.equal(await check.status("segue.v1.Tensors"), "NOT_SERVING");
  });

  it("lists its services and their files by reflection", async () => {
    const server = await start();
    const listing = await reflect(server.address, { listServices: "*" });
    const names = listing.listServicesResponse?.service.map(({ name }) => name);
    assert.deepEqual(names?.sort(), ["segue.v1.Jobs", "segue.v1.Tensors"]);
    const files = await reflect(server.address, { fileContainingSymbol: "segue.v1.Jobs" });
    assert.ok((files.fileDescriptorResponse?.fileDescriptorProto.length ?? 0) >= 2, "jobs.proto and what it imports");
  });

  it("limits unary calls per peer and says when to come back", async () => {
    const server = await start({ getJob: async () => ({}) }, { rateLimit: { perSecond: 1, burst: 3 } });
    const client = jobsClient(server.address);
    for (let call = 0; call < 3; call++) await client.getJob({});
    const error = fromServiceError(await client.getJob({}).catch((caught: unknown) => caught));
    assert.equal(error.code, "RATE_LIMITED");
    assert.equal(error.status, "RESOURCE_EXHAUSTED");
    assert.equal(error.retryable, true);
  });

  it("refuses requests beyond 4 MiB", async () => {
    const server = await start({ submitJob: async () => ({}) });
    const request = { source: { case: "yaml" as const, value: "x".repeat(5 * 2 ** 20) } };
    await assert.rejects(jobsClient(server.address).submitJob(request), { code: grpc.status.RESOURCE_EXHAUSTED });
  });

  it("refuses to listen beyond loopback without TLS and token, saying what to set", async () => {
    const refused = (error: unknown) =>
      error instanceof SegueError && error.code === "INSECURE_LISTENER" && /SEGUE_TLS_CERT/.test(error.message);
    await assert.rejects(start({}, { listen: "0.0.0.0:0" }), refused);
    await assert.rejects(start({}, { listen: "0.0.0.0:0", token: TOKEN }), refused);
    await assert.rejects(start({}, { listen: "[::]:0", token: TOKEN }), refused);
  });

  it("serves beyond loopback with certificates from createCertificates", async () => {
    const files = await createCertificates(join(temporaryFolder(), "certs"), ["coordinator.example", "192.0.2.7"]);
    const security = securityFromSettings({
      SEGUE_TLS_CERT: files.cert,
      SEGUE_TLS_KEY: files.key,
      SEGUE_TLS_CA: files.ca,
      SEGUE_TOKEN_FILE: files.token,
    });
    const server = await start({ getJob: async () => ({ job: { jobId: "x" } }) }, { listen: "0.0.0.0:0", ...security });
    const address = server.address.replace("0.0.0.0", "localhost");
    assert.equal((await jobsClient(address, security).getJob({})).job?.jobId, "x");
    const noToken = jobsClient(address, { tls: security.tls });
    await assert.rejects(noToken.getJob({}), { code: grpc.status.UNAUTHENTICATED });
    const otherCa = await createCertificates(join(temporaryFolder(), "other"), []);
    const distrustful = jobsClient(address, { tls: { ca: readFileSync(otherCa.ca) }, token: TOKEN });
    await assert.rejects(distrustful.getJob({}), { code: grpc.status.UNAVAILABLE });
    await assert.rejects(jobsClient(address).getJob({}), { code: grpc.status.UNAVAILABLE });
  });

  it("is reached by an address its certificate does not list when the name is given, and probed over TLS", async () => {
    const files = await createCertificates(join(temporaryFolder(), "certs"), ["segue.internal"]);
    const env = {
      SEGUE_TLS_CERT: files.cert,
      SEGUE_TLS_KEY: files.key,
      SEGUE_TLS_CA: files.ca,
      SEGUE_TOKEN_FILE: files.token,
      SEGUE_TLS_SERVER_NAME: "segue.internal",
    };
    const security = securityFromSettings(env);
    const server = await start({ getJob: async () => ({ job: { jobId: "x" } }) }, { listen: "0.0.0.0:0", ...security });
    const address = server.address.replace("0.0.0.0", "127.0.0.2");
    assert.equal((await jobsClient(address, security).getJob({})).job?.jobId, "x");
    const unnamed = { ...security, tls: { ...security.tls, serverName: undefined } };
    await assert.rejects(jobsClient(address, unnamed).getJob({}), { code: grpc.status.UNAVAILABLE });

    const probe = async (): Promise<unknown> => {
      const script = fileURLToPath(new URL("../src/health-probe.ts", import.meta.url));
      const child = spawn(process.execPath, ["--import", "tsx", "--conditions", "segue-source", script], {
        env: { PATH: process.env["PATH"], ...env, SEGUE_LISTEN: server.address },
      });
      return (await once(child, "exit"))[0];
    };
    assert.equal(await probe(), 0);
    server.health.set(false);
    assert.equal(await probe(), 1);
  });

  it("never sends a token to another machine in the clear", () => {
    assert.throws(() => connectClient(Jobs, "192.0.2.7:7070", { token: TOKEN }), { code: "INSECURE_CONNECTION" });
  });

  it("says so when the port is taken", async () => {
    const server = await start();
    await assert.rejects(start({}, { listen: server.address }), { code: "LISTEN_FAILED" });
  });

  it("lets calls in flight finish at close and cuts off what outlasts the deadline", async () => {
    let arrived = (): void => undefined;
    let answer = (): void => undefined;
    const arrival = new Promise<void>((resolve) => (arrived = resolve));
    const handlers: Partial<Handlers<typeof Jobs>> = {
      getJob: () => {
        arrived();
        return new Promise((resolve) => (answer = () => resolve({ job: { jobId: "late" } })));
      },
      async *watchJob(_request, { signal }) {
        yield {};
        await once(signal, "abort");
      },
    };
    const patient = await start(handlers);
    const call = jobsClient(patient.address).getJob({});
    await arrival;
    const closed = patient.close(PATIENCE_MS);
    answer();
    await closed;
    assert.equal((await call).job?.jobId, "late");

    const hurried = await start(handlers);
    const stream = jobsClient(hurried.address).watchJob({})[Symbol.asyncIterator]();
    await stream.next();
    const ended = assert.rejects(stream.next());
    await hurried.close(100);
    await ended;
  });
});

function jobsHandlers(some: Partial<Handlers<typeof Jobs>>): Handlers<typeof Jobs> {
  const missing = Jobs.methods.map((method) => [
    method.localName,
    () => {
      throw new Error(`${method.localName} is not part of this test`);
    },
  ]);
  return { ...(Object.fromEntries(missing) as Handlers<typeof Jobs>), ...some };
}

async function healthChecker(address: string) {
  const client = new (grpc.makeGenericClientConstructor(healthService, "Health"))(address, grpc.credentials.createInsecure());
  return {
    status: (service: string): Promise<string> =>
      new Promise((resolve, reject) => {
        const check = client["check"] as (
          request: object,
          callback: (error: grpc.ServiceError | null, response: { status: string }) => void,
        ) => void;
        check.call(client, { service }, (error, response) => (error ? reject(error) : resolve(response.status)));
      }),
    close: () => client.close(),
  };
}

interface ReflectionResponse {
  listServicesResponse?: { service: { name: string }[] };
  fileDescriptorResponse?: { fileDescriptorProto: Uint8Array[] };
}

async function reflect(address: string, request: object): Promise<ReflectionResponse> {
  const proto = join(import.meta.dirname, "../../../node_modules/@grpc/reflection/build/proto/grpc/reflection/v1/reflection.proto");
  const definition = loadSync(proto, { oneofs: true })["grpc.reflection.v1.ServerReflection"] as grpc.ServiceDefinition;
  const client = new (grpc.makeGenericClientConstructor(definition, "ServerReflection"))(
    address,
    grpc.credentials.createInsecure(),
  );
  try {
    const open = client["ServerReflectionInfo"] as () => grpc.ClientDuplexStream<object, ReflectionResponse>;
    const call = open.call(client);
    call.write(request);
    const [response] = (await once(call, "data")) as [ReflectionResponse];
    call.end();
    call.resume();
    await once(call, "end");
    return response;
  } finally {
    client.close();
  }
}
