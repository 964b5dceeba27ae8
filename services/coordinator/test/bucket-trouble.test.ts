import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, truncate } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTcpServer, type AddressInfo, type Server as TcpServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { JobPhase, pullTensor, Tensors } from "@segue/protocol";
import { connectClient, fromServiceError } from "@segue/runtime";
import { until } from "../../../test/helpers/patience.js";
import { isRefusal } from "../src/checkpoints/open-mirror.js";
import { S3Objects } from "../src/checkpoints/s3-objects.js";
import { SPEC, TestCluster } from "./helpers/cluster.js";
import { withCredentials } from "./helpers/credentials.js";

describe("a bucket whose service accepts connections and never answers", () => {
  withCredentials();
  let service: TcpServer;
  const sockets = new Set<Socket>();
  let place: { checkpoints: string; s3Endpoint: string; checkpointsTimeoutMs: number };

  beforeEach(async () => {
    service = createTcpServer((socket) => {
      sockets.add(socket.on("error", () => undefined));
    });
    service.listen(0, "127.0.0.1");
    await once(service, "listening");
    const s3Endpoint = `http://127.0.0.1:${(service.address() as AddressInfo).port}`;
    place = { checkpoints: "s3://bucket/p", s3Endpoint, checkpointsTimeoutMs: 200 };
  });
  afterEach(async () => {
    for (const socket of sockets) socket.destroy();
    sockets.clear();
    service.close();
    await once(service, "close");
  });

  it("stops neither the start, nor rounds, nor a pause, nor the end; the job says what is not copied", async () => {
    const cluster = await TestCluster.start(place);
    try {
      await cluster.worker();
      const jobId = await cluster.submit();
      const digest = await cluster.digest(jobId);
      assert.equal(digest, await TestCluster.undisturbedDigest());
      // Older ones are deleted here without an answer of the bucket.
      const { checkpoints } = await cluster.jobs.listCheckpoints({ jobId });
      assert.deepEqual(
        checkpoints.map(({ step }) => step),
        [24, 18],
      );
      const job = await until(async () => {
        const { job } = await cluster.jobs.getJob({ jobId });
        return job !== undefined && job.notDurable !== "" && job;
      }, "the job to say what is missing");
      assert.match(job.notDurable, /the checkpoint of step \d+ could not be copied to s3:\/\/bucket\/p: .*timed out/);

      const long = await cluster.submit(SPEC.replace("steps: 24", "steps: 100000"));
      await cluster.until(long, ({ checkpointStep }) => checkpointStep >= 18);
      await cluster.jobs.pauseJob({ jobId: long });
      await cluster.until(long, ({ phase }) => phase === JobPhase.PAUSED);
    } finally {
      await cluster.close();
    }
  });
});

describe("unfinished uploads", () => {
  withCredentials();
  let server: Server;
  let objects: S3Objects;
  /** By id; what a listing says may be gone when it is aborted. */
  const uploads = new Set<string>();
  const goneMeanwhile = new Set<string>();

  beforeEach(async () => {
    server = createServer((request, response) => answer(request, response));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    objects = new S3Objects("bucket", "p", `http://127.0.0.1:${(server.address() as AddressInfo).port}`, 60_000);
  });
  afterEach(async () => {
    objects.close();
    server.close();
    await once(server, "close");
    uploads.clear();
    goneMeanwhile.clear();
  });

  /** ListMultipartUploads in pages of 1,000, and AbortMultipartUpload. */
  function answer({ method, url = "" }: IncomingMessage, response: ServerResponse): void {
    const { searchParams } = new URL(url, "http://s3");
    if (method === "DELETE") {
      const id = searchParams.get("uploadId") ?? "";
      const isThere = uploads.delete(id) && !goneMeanwhile.has(id);
      if (isThere) return void response.writeHead(204).end();
      return void response.writeHead(404).end("<Error><Code>NoSuchUpload</Code><Message>no such upload</Message></Error>");
    }
    const after = searchParams.get("upload-id-marker") ?? "";
    // As versitygw answers.
    if (after !== "" && !uploads.has(after)) {
      return void response
        .writeHead(400)
        .end("<Error><Code>InvalidArgument</Code><Message>Invalid uploadId marker</Message></Error>");
    }
    const all = [...uploads].filter((id) => id > after).sort();
    const page = all.slice(0, 1_000);
    const entries = page.map((id) => `<Upload><Key>p/job/step-00000001/model.safetensors</Key><UploadId>${id}</UploadId></Upload>`);
    const next = `<NextKeyMarker>p/job/step-00000001/model.safetensors</NextKeyMarker><NextUploadIdMarker>${page.at(-1)}</NextUploadIdMarker>`;
    const isTruncated = all.length > page.length;
    response.writeHead(200, { "content-type": "application/xml" });
    response.end(
      `<ListMultipartUploadsResult><IsTruncated>${isTruncated}</IsTruncated>${isTruncated ? next : ""}${entries.join("")}</ListMultipartUploadsResult>`,
    );
  }

  it("are all aborted, however many there are, and one that is gone already is none", async () => {
    for (let index = 0; index < 2_345; index++) uploads.add(`id-${String(index).padStart(5, "0")}`);
    for (const id of ["id-00003", "id-01500", "id-02344"]) goneMeanwhile.add(id);
    await objects.removeUnfinished();
    assert.equal(uploads.size, 0);
  });
});

describe("an answer that is no refusal of access", () => {
  it("is told from one that is", () => {
    const answered = (name: string, httpStatusCode: number): Error =>
      Object.assign(new Error(name), { name, $metadata: { httpStatusCode } });
    for (const [name, status] of [
      ["AccessDenied", 403],
      ["NoSuchBucket", 404],
      ["InvalidAccessKeyId", 403],
      ["AuthorizationHeaderMalformed", 400],
    ] as const) {
      assert.equal(isRefusal(answered(name, status)), true, name);
    }
    assert.equal(isRefusal(Object.assign(new Error("none"), { name: "CredentialsProviderError" })), true);
    for (const [name, status] of [
      ["NoSuchUpload", 404],
      ["NoSuchKey", 404],
      ["RequestTimeout", 400],
      ["OperationAborted", 409],
      ["SlowDown", 429],
      ["InternalError", 500],
      ["SlowDown", 503],
    ] as const) {
      assert.equal(isRefusal(answered(name, status)), false, name);
    }
    assert.equal(isRefusal(Object.assign(new Error("timed out"), { name: "TimeoutError" })), false);
  });
});

describe("a copy that has lost a file", () => {
  let folder: string;
  const clusters: TestCluster[] = [];

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "segue-lost-file-"));
  });
  afterEach(async () => {
    for (const cluster of clusters.splice(0)) await cluster.close();
    await rm(folder, { recursive: true });
  });

  const start = async (): Promise<TestCluster> => {
    const cluster = await TestCluster.start({ checkpoints: join(folder, "copies") });
    clusters.push(cluster);
    return cluster;
  };
  /** A finished job whose two checkpoints are copied, in a coordinator that is stopped. */
  const trained = async (): Promise<{ cluster: TestCluster; jobId: string; copy: string }> => {
    const cluster = await start();
    await cluster.worker();
    const jobId = await cluster.submit();
    await cluster.digest(jobId);
    const copies = join(folder, "copies", jobId);
    const isWhole = async (): Promise<boolean> =>
      (await readdir(copies, { recursive: true })).filter((name) => name.endsWith("manifest.json")).length === 2;
    await until(() => isWhole().catch(() => false), "two copies");
    await cluster.stopCoordinator();
    return { cluster, jobId, copy: join(copies, "step-00000024") };
  };

  it("is repaired from the local checkpoint at the next start", async () => {
    const { cluster, jobId, copy } = await trained();
    const model = join(copy, "model.safetensors");
    const whole = await readFile(model);
    await rm(model);
    await truncate(join(copy, "lanes.safetensors"), 10);
    await cluster.startCoordinator();
    await until(async () => (await readFile(model).catch(() => undefined))?.equals(whole), "the file");
    const local = join(cluster.store, "jobs", jobId, "checkpoints", "step-00000024");
    for (const name of await readdir(local)) {
      await until(async () => (await readFile(join(copy, name))).equals(await readFile(join(local, name))), name);
    }
    await until(async () => (await cluster.jobs.getJob({ jobId })).job?.notDurable === "", "nothing to be missing");
  });

  it("is told by name on a machine that has nothing to repair it from, and made again when its step is", async () => {
    const { jobId, copy } = await trained();
    await rm(join(copy, "model.safetensors"));
    const second = await start();
    const { job } = await second.jobs.getJob({ jobId });
    assert.match(job?.reason ?? "", /found in .*copies at step 18/);
    assert.match(job?.notDurable ?? "", /the copy of step 24 in .* lacks model.safetensors, and this machine has no checkpoint/);
    const tensors = connectClient(Tensors, second.address);
    try {
      const pulled = pullTensor(tensors, `job/${jobId}/checkpoint/24/model.safetensors`);
      const { code, message } = fromServiceError(await pulled.catch((error: unknown) => error));
      assert.equal(code, "CHECKPOINT_DAMAGED");
      assert.match(message, /step-00000024\/model.safetensors is missing/);
    } finally {
      tensors.close();
    }
    await second.jobs.resumeJob({ jobId });
    await second.worker();
    await second.digest(jobId);
    await until(async () => (await readdir(copy)).includes("model.safetensors"), "the copy to be made again");
    await until(async () => (await second.jobs.getJob({ jobId })).job?.notDurable === "", "nothing to be missing");
  });
});
