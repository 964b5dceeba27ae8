import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { status } from "@grpc/grpc-js";
import {
  createClient,
  isServiceError,
  JobPhase,
  Jobs,
  RpcError,
  Workers,
  type CallContext,
  type ChannelSettings,
} from "../src/index.js";
import { until } from "../../../test/helpers/patience.js";
import * as grpc from "@grpc/grpc-js";
import { aborted, someHandlers, startLocalServer, type LocalServer } from "./local-server.js";

const hasCode = (code: status) => (error: unknown) => isServiceError(error) && error.code === code;

describe("the gRPC adapter", () => {
  const open: { close(): void }[] = [];
  const keep = <T extends { close(): void }>(server: T): T => {
    open.push(server);
    return server;
  };
  afterEach(() => open.splice(0).forEach((each) => each.close()));

  const jobsServer = async (some: Parameters<typeof someHandlers<typeof Jobs>>[1]): Promise<LocalServer<typeof Jobs>> =>
    keep(await startLocalServer(Jobs, someHandlers(Jobs, some)));

  it("carries a unary call both ways, with bigint for 64-bit fields", async () => {
    const { client } = await jobsServer({
      getJob: async ({ jobId }) => ({ job: { jobId, phase: JobPhase.RUNNING, tokens: 2n ** 60n, loss: 1.5 } }),
    });
    const { job } = await client.getJob({ jobId: "abc" });
    assert.equal(job?.jobId, "abc");
    assert.equal(job.phase, JobPhase.RUNNING);
    assert.equal(job.tokens, 2n ** 60n);
    assert.equal(job.loss, 1.5);
  });

  it("passes on a status that a handler throws and hides any other error", async () => {
    const { client } = await jobsServer({
      getJob: async () => {
        throw new RpcError(status.NOT_FOUND, "JOB_NOT_FOUND", "no job abc");
      },
      pauseJob: async () => {
        throw new Error("the password is hunter2");
      },
    });
    await assert.rejects(client.getJob({ jobId: "abc" }), { code: status.NOT_FOUND, details: "no job abc" });
    await assert.rejects(client.pauseJob({}), { code: status.INTERNAL, details: "internal error" });
  });

  it("ends a unary call at its deadline and tells the handler", async () => {
    let told: Promise<unknown> | undefined;
    const { client } = await jobsServer({
      getJob: (_request, { signal }) => {
        told = aborted(signal);
        return new Promise(() => undefined);
      },
    });
    await assert.rejects(client.getJob({}, { deadlineMs: 100 }), hasCode(status.DEADLINE_EXCEEDED));
    await told;
  });

  it("uses the channel's deadline for unary calls that name none", async () => {
    const { client } = keep(
      await startLocalServer(Jobs, someHandlers(Jobs, { getJob: () => new Promise(() => undefined) }), { unaryDeadlineMs: 80 }),
    );
    await assert.rejects(client.getJob({}), hasCode(status.DEADLINE_EXCEEDED));
  });

  it("cancels a unary call through its signal, also before it starts", async () => {
    const stop = new AbortController();
    let told = false;
    const { client } = await jobsServer({
      getJob: async (_request, { signal }) => {
        stop.abort();
        await aborted(signal);
        told = true;
        return {};
      },
    });
    await assert.rejects(client.getJob({}, { signal: stop.signal }), hasCode(status.CANCELLED));
    await until(() => told, "the handler to hear of it");
    await assert.rejects(client.getJob({}, { signal: AbortSignal.abort() }), hasCode(status.CANCELLED));
  });

  it("streams responses in order to their end", async () => {
    const { client } = await jobsServer({
      async *watchJob({ jobId }) {
        for (let step = 0; step < 200; step++) yield { job: { jobId, step } };
      },
    });
    const steps: (number | undefined)[] = [];
    for await (const { job } of client.watchJob({ jobId: "j" })) steps.push(job?.step);
    assert.deepEqual(
      steps,
      Array.from({ length: 200 }, (_, step) => step),
    );
  });

  it("delivers what a stream sent before it failed, then the status", async () => {
    const { client } = await jobsServer({
      async *watchJob() {
        yield { job: { step: 1 } };
        yield { job: { step: 2 } };
        throw new RpcError(status.ABORTED, "GONE", "gone");
      },
    });
    const steps: (number | undefined)[] = [];
    const reading = (async () => {
      for await (const { job } of client.watchJob({})) steps.push(job?.step);
    })();
    await assert.rejects(reading, { code: status.ABORTED, details: "gone" });
    assert.deepEqual(steps, [1, 2]);
  });

  it("finishes the handler's generator when the reader leaves the loop", async () => {
    let finished = false;
    const { client } = await jobsServer({
      async *watchJob(_request, { signal }: CallContext) {
        try {
          for (let step = 0; !signal.aborted; step++) {
            yield { job: { step } };
            await sleep(5);
          }
        } finally {
          finished = true;
        }
      },
    });
    for await (const { job } of client.watchJob({})) if (job?.step === 3) break;
    await until(() => finished, "the end of the generator");
  });

  it("throws CANCELLED from a stream whose signal aborts", async () => {
    const { client } = await jobsServer({
      async *watchJob(_request, { signal }) {
        yield {};
        await aborted(signal);
      },
    });
    const stop = new AbortController();
    const reading = each(client.watchJob({}, { signal: stop.signal }), () => stop.abort());
    await assert.rejects(reading, hasCode(status.CANCELLED));
  });

  it("does not run ahead of a slow reader", async () => {
    let produced = 0;
    const { client } = keep(
      await startLocalServer(
        Jobs,
        someHandlers(Jobs, {
          async *watchJob() {
            for (; produced < 60; produced++) yield { job: { reason: "x".repeat(2 ** 20) } };
          },
        }),
      ),
    );
    let read = 0;
    let ahead = 0;
    await each(client.watchJob({}), async () => {
      await sleep(10);
      ahead = Math.max(ahead, produced - ++read);
    });
    assert.equal(read, 60);
    assert.ok(ahead < 45, `${ahead} MiB ahead`);
  });

  const workersServer = async (attach: Parameters<typeof startLocalServer<typeof Workers>>[1]["attach"]) =>
    keep(await startLocalServer(Workers, { attach }));

  it("carries a bidi stream whose sides end independently", async () => {
    const { client } = await workersServer(async function* (requests) {
      for await (const { message } of requests) {
        if (message.case === "heartbeat") yield { message: { case: "welcome", value: { heartbeatMs: message.value.step } } };
      }
      yield { message: { case: "welcome", value: { workerId: "last" } } };
    });
    const answers: unknown[] = [];
    for await (const { message } of client.attach(heartbeats(3))) {
      if (message.case === "welcome") answers.push(message.value.workerId || message.value.heartbeatMs);
    }
    assert.deepEqual(answers, [0, 1, 2, "last"]);
  });

  it("does not run ahead of a handler that does not read", async () => {
    let sent = 0;
    const { client } = await workersServer(async function* (_requests, { signal }) {
      yield {};
      await aborted(signal);
    });
    const stop = new AbortController();
    const reading = each(client.attach(big(), { signal: stop.signal }), () => sleep(300));
    async function* big() {
      for (; sent < 500; sent++) yield { message: { case: "failure" as const, value: { message: "x".repeat(2 ** 18) } } };
    }
    await sleep(300);
    stop.abort();
    await assert.rejects(reading, hasCode(status.CANCELLED));
    assert.ok(sent < 100, `${sent} messages of 256 KiB were taken`);
  });

  it("ends the handler's requests without an error when the client goes", async () => {
    let outcome = "";
    let wasTold = false;
    const { client } = await workersServer(async function* (requests, { signal }) {
      signal.addEventListener("abort", () => (wasTold = true));
      yield {};
      try {
        await each(requests);
        outcome = "ended";
      } catch (error) {
        outcome = String(error);
      }
    });
    const responses = client.attach(silence())[Symbol.asyncIterator]();
    await responses.next();
    await responses.return?.();
    await until(() => outcome !== "" && wasTold, "the end of the requests");
    assert.equal(outcome, "ended");
  });

  it("tells the requests' iterable when the server ends the call", async () => {
    let returned = false;
    const requests = {
      [Symbol.asyncIterator]: () => ({
        next: () => new Promise<never>(() => undefined),
        return: async () => {
          returned = true;
          return { done: true as const, value: undefined };
        },
      }),
    };
    const { client } = await workersServer(async function* () {
      yield {};
    });
    let responses = 0;
    await each(client.attach(requests), () => void responses++);
    assert.equal(responses, 1);
    assert.equal(returned, true);
  });

  it("throws what the requests' iterable threw", async () => {
    const { client } = await workersServer(async function* (requests) {
      for await (const { message } of requests) yield { message: { case: "welcome", value: { workerId: message.case ?? "" } } };
    });
    async function* failing() {
      yield {};
      throw new RangeError("out of words");
    }
    await assert.rejects(each(client.attach(failing())), RangeError);
  });

  it("fails with UNAVAILABLE when nobody listens", async () => {
    const { client, port } = await jobsServer({});
    open.splice(0).forEach((each) => each.close());
    client.close();
    const lonely = keep(createClient(Jobs, `127.0.0.1:${port}`, grpc.credentials.createInsecure()));
    await assert.rejects(lonely.getJob({}), hasCode(status.UNAVAILABLE));
  });

  it("refuses unknown channel settings", () => {
    const misspelt = { recieveWindowBytes: 1 } as ChannelSettings;
    assert.throws(() => createClient(Jobs, "127.0.0.1:1", grpc.credentials.createInsecure(), misspelt), /recieveWindowBytes/);
  });
});

async function* heartbeats(count: number) {
  for (let step = 0; step < count; step++) yield { message: { case: "heartbeat" as const, value: { step } } };
}

/** A request stream that stays open and says nothing. */
function silence(): AsyncIterable<never> {
  return { [Symbol.asyncIterator]: () => ({ next: () => new Promise<never>(() => undefined) }) };
}

async function each<T>(items: AsyncIterable<T>, visit: (item: T) => void | Promise<void> = () => undefined): Promise<void> {
  for await (const item of items) await visit(item);
}
