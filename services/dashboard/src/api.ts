import { SegueError } from "@segue/core";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { LiveEvent, LiveFeed } from "./live-feed.js";
import type { DashboardStore } from "./store.js";

const JOB_ID = { type: "string", pattern: "^[A-Za-z0-9._-]{1,128}$" } as const;
const JOB_PARAMS = { type: "object", properties: { jobId: JOB_ID }, required: ["jobId"] } as const;
const DEFAULT_POINTS = 600;
const MAX_STREAMS = 200;
const MAX_UNSENT_BYTES = 4 * 1024 * 1024;
const KEEP_ALIVE_MS = 15_000;

interface JobParams {
  Params: { jobId: string };
}

/** The JSON endpoints under /api and the live event stream. */
export function addApi(app: FastifyInstance, store: DashboardStore, feed: LiveFeed, needsLogin: boolean): void {
  // Answers only with a session, if one is needed; tells the page whether there is something to log out of.
  app.get("/api/session", () => ({ login: needsLogin }));
  // Every job that is not finished and the newest finished ones; with `older` the finished ones after that job.
  app.get<{ Querystring: { older?: string } }>(
    "/api/jobs",
    { schema: { querystring: { type: "object", properties: { older: JOB_ID } } } },
    ({ query }) => store.jobs(query.older),
  );
  app.get<JobParams>("/api/jobs/:jobId", { schema: { params: JOB_PARAMS } }, async ({ params }) => {
    const detail = await store.job(params.jobId);
    if (detail === undefined) throw new SegueError("JOB_NOT_FOUND", `There is no job ${params.jobId}.`, { status: "NOT_FOUND" });
    return detail;
  });
  app.get<JobParams & { Querystring: { points: number } }>(
    "/api/jobs/:jobId/series",
    {
      schema: {
        params: JOB_PARAMS,
        querystring: {
          type: "object",
          properties: { points: { type: "integer", minimum: 10, maximum: 5_000, default: DEFAULT_POINTS } },
        },
      },
    },
    ({ params, query }) => store.series(params.jobId, query.points),
  );
  app.get<JobParams>("/api/evaluations/:jobId", { schema: { params: JOB_PARAMS } }, async ({ params }) => {
    const { heatMaps, losses } = await store.evaluations(params.jobId);
    return { evaluations: heatMaps, losses };
  });
  app.get("/api/workers", async () => {
    const [workers, evaluators] = await Promise.all([store.workers(), store.evaluators()]);
    return { workers, evaluators };
  });
  app.get("/api/queue", async () => ({ queues: await store.queues() }));
  app.get<{ Querystring: { job?: string } }>(
    "/api/events",
    { schema: { querystring: { type: "object", properties: { job: JOB_ID } } } },
    (request, reply) => streamEvents(request, reply, feed, request.query.job),
  );
}

/** Server-sent events: one per topic that changed (see LiveEvent). A browser that cannot keep up is cut off; it connects again by itself. */
function streamEvents(request: FastifyRequest, reply: FastifyReply, feed: LiveFeed, jobId: string | undefined): void {
  if (feed.subscribers >= MAX_STREAMS) {
    throw new SegueError("TOO_MANY_STREAMS", `More than ${MAX_STREAMS} pages are open.`, {
      status: "RESOURCE_EXHAUSTED",
      retryable: true,
    });
  }
  reply.hijack();
  const { raw } = reply;
  raw.writeHead(200, {
    ...(reply.getHeaders() as Record<string, string>),
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
  });
  raw.write("retry: 2000\n\n");
  const send = ({ topic, payload }: LiveEvent): void => {
    raw.write(`event: ${topic}\ndata: ${JSON.stringify(payload)}\n\n`);
    if (raw.writableLength > MAX_UNSENT_BYTES) raw.destroy();
  };
  const unsubscribe = feed.subscribe({ jobId, send });
  const keepAlive = setInterval(() => raw.write(": still here\n\n"), KEEP_ALIVE_MS);
  request.raw.socket.setNoDelay(true);
  raw.on("error", () => raw.destroy());
  raw.once("close", () => {
    clearInterval(keepAlive);
    unsubscribe();
  });
}
