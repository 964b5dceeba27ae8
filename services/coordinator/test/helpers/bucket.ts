import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";

const PAGE_KEYS = 3;

/** A service on loopback with as much of S3 as small checkpoints need: objects in memory, listings in short pages, no credentials. */
export class Bucket {
  readonly objects = new Map<string, Buffer>();
  /** Requests for which it holds are answered with an error of the service. */
  fails: (method: string, url: URL) => boolean = () => false;
  readonly #server: Server;

  private constructor() {
    this.#server = createServer((request, response) => void this.#answer(request, response));
  }

  static async start(): Promise<Bucket> {
    const bucket = new Bucket();
    bucket.#server.listen(0, "127.0.0.1");
    await once(bucket.#server, "listening");
    return bucket;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = "" } = request;
    const url = new URL(request.url ?? "", "http://bucket");
    const body = await buffer(request).catch(() => Buffer.alloc(0));
    const { searchParams } = url;
    const [, , ...path] = decodeURIComponent(url.pathname).split("/");
    const key = path.join("/");
    const answer = (status: number, content: string | Buffer = ""): void =>
      void response.writeHead(status, { "content-length": Buffer.byteLength(content) }).end(content);
    if (this.fails(method, url)) return answer(500, "<Error><Code>InternalError</Code><Message>try again</Message></Error>");
    if (searchParams.has("uploads")) return answer(200, "<ListMultipartUploadsResult></ListMultipartUploadsResult>");
    if (searchParams.has("list-type")) return answer(200, this.#page(searchParams));
    if (method === "POST" && searchParams.has("delete")) {
      for (const [, name = ""] of body.toString().matchAll(/<Key>([^<]*)<\/Key>/g)) this.objects.delete(name);
      return answer(200, "<DeleteResult></DeleteResult>");
    }
    if (method === "PUT") {
      this.objects.set(key, body);
      return answer(200);
    }
    const object = this.objects.get(key);
    if (object) return answer(200, object);
    answer(404, "<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>");
  }

  #page(params: URLSearchParams): string {
    const after = params.get("continuation-token") ?? "";
    const all = [...this.objects.keys()].filter((key) => key.startsWith(params.get("prefix") ?? "") && key > after).sort();
    const page = all.slice(0, PAGE_KEYS);
    const entries = page.map((key) => `<Contents><Key>${key}</Key><Size>${this.objects.get(key)?.byteLength}</Size></Contents>`);
    const isTruncated = all.length > page.length;
    const next = isTruncated ? `<NextContinuationToken>${page.at(-1)}</NextContinuationToken>` : "";
    return `<ListBucketResult><IsTruncated>${isTruncated}</IsTruncated>${next}${entries.join("")}</ListBucketResult>`;
  }
}
