import { createHash, webcrypto } from "node:crypto";
import { setMaxListeners } from "node:events";
import { createWriteStream } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  NoSuchKey,
  NoSuchUpload,
  paginateListObjectsV2,
  PutObjectCommand,
  S3Client,
  UploadPartCommand,
  type CompletedPart,
  type GetObjectCommandOutput,
  type MultipartUpload,
} from "@aws-sdk/client-s3";
import { updateHashes } from "./hashed-file.js";
import { uploadDamaged, type ObjectRecord, type ObjectStore, type StoredObject } from "./object-store.js";

/** S3 takes parts of 5 MiB to 5 GiB, and at most 10,000 of them. */
const PART_BYTES = 16 * 2 ** 20;
const MAX_PARTS = 10_000;
const PARTS_IN_FLIGHT = 4;
/** Most keys of one DeleteObjects request. */
const DELETE_KEYS = 1_000;
/** Unfinished uploads that are aborted at a time. */
const ABORTS_IN_FLIGHT = 8;
const CONNECT_MS = 5_000;
/** The first try included. */
const ATTEMPTS = 2;

/**
 * Objects in a bucket of S3 or of a compatible service. Credentials and region come from the SDK's standard chain (environment, profile,
 * container, instance). Every part goes with its SHA-256, which the service checks before it accepts it. A request on whose connection
 * nothing moves fails, and is tried once more.
 */
export class S3Objects implements ObjectStore {
  readonly url: string;
  readonly #bucket: string;
  readonly #root: string;
  readonly #client: S3Client;
  readonly #closing = new AbortController();

  /** @param idleMs how long nothing may move on a connection that a request waits for */
  constructor(bucket: string, prefix: string, endpoint: string | undefined, idleMs: number) {
    // One for each request in flight.
    setMaxListeners(0, this.#closing.signal);
    this.url = `s3://${bucket}/${prefix}`.replace(/\/$/, "");
    this.#bucket = bucket;
    this.#root = prefix === "" ? "" : `${prefix}/`;
    const isRegionSet = process.env["AWS_REGION"] !== undefined || process.env["AWS_DEFAULT_REGION"] !== undefined;
    this.#client = new S3Client({
      ...(endpoint === undefined ? {} : { endpoint, forcePathStyle: true, ...(isRegionSet ? {} : { region: "us-east-1" }) }),
      // SHA-256 is sent explicitly; the SDK's own CRC trailers are refused by some compatible services.
      requestChecksumCalculation: "WHEN_REQUIRED",
      responseChecksumValidation: "WHEN_REQUIRED",
      maxAttempts: ATTEMPTS,
      // Without a limit for requests as a whole: a large file may take its time as long as it moves.
      requestHandler: { connectionTimeout: Math.min(CONNECT_MS, idleMs), socketTimeout: idleMs },
    });
  }

  async list(): Promise<StoredObject[]> {
    const objects: StoredObject[] = [];
    const where = { Bucket: this.#bucket, Prefix: this.#root };
    for await (const page of paginateListObjectsV2({ client: this.#client }, where, this.#options)) {
      for (const { Key, Size = 0 } of page.Contents ?? []) {
        if (Key !== undefined) objects.push({ key: Key.slice(this.#root.length), bytes: Size });
      }
    }
    return objects;
  }

  async read(key: string): Promise<Uint8Array | undefined> {
    return (await this.#get(key))?.transformToByteArray();
  }

  async download(key: string, path: string): Promise<boolean> {
    const body = await this.#get(key);
    if (!body) return false;
    await pipeline(body as Readable, createWriteStream(path, { flags: "wx", flush: true }));
    return true;
  }

  async upload(key: string, path: string, record: ObjectRecord, signal: AbortSignal): Promise<void> {
    const file = await open(path);
    try {
      if ((await file.stat()).size !== record.bytes) throw uploadDamaged(path);
      if (record.bytes <= PART_BYTES) await this.#uploadWhole(key, path, file, record, signal);
      else await this.#uploadParts(key, path, file, record, signal);
    } finally {
      await file.close();
    }
    const { ContentLength } = await this.#client.send(new HeadObjectCommand(this.#at(key)), this.#options);
    if (ContentLength !== record.bytes) {
      throw new Error(`${this.url}/${key} has ${ContentLength ?? "no"} bytes after an upload of ${record.bytes}`);
    }
  }

  async remove(keys: readonly string[]): Promise<void> {
    for (let at = 0; at < keys.length; at += DELETE_KEYS) {
      const Objects = keys.slice(at, at + DELETE_KEYS).map((key) => ({ Key: this.#root + key }));
      const { Errors } = await this.#client.send(
        new DeleteObjectsCommand({ Bucket: this.#bucket, Delete: { Objects, Quiet: true }, ChecksumAlgorithm: "SHA256" }),
        this.#options,
      );
      const [first] = Errors ?? [];
      if (first) throw new Error(`${this.url}: cannot delete ${first.Key ?? ""}: ${first.Code ?? ""} ${first.Message ?? ""}`);
    }
  }

  /**
   * The first page is listed again and again while its uploads are aborted: the marker of a next page would name one that is gone, which
   * some services refuse.
   */
  async removeUnfinished(): Promise<void> {
    const seen = new Set<string | undefined>();
    for (;;) {
      const request = new ListMultipartUploadsCommand({ Bucket: this.#bucket, Prefix: this.#root });
      const { Uploads = [], IsTruncated } = await this.#client.send(request, this.#options);
      const uploads = Uploads.filter(({ UploadId }) => !seen.has(UploadId));
      for (let at = 0; at < uploads.length; at += ABORTS_IN_FLIGHT) {
        await Promise.all(uploads.slice(at, at + ABORTS_IN_FLIGHT).map((upload) => this.#abort(upload)));
      }
      for (const { UploadId } of uploads) seen.add(UploadId);
      // One that is listed although it was aborted is not asked for for ever.
      if (IsTruncated !== true || uploads.length === 0) return;
    }
  }

  close(): void {
    this.#closing.abort();
    this.#client.destroy();
  }

  get #options(): { abortSignal: AbortSignal } {
    return { abortSignal: this.#closing.signal };
  }

  async #get(key: string): Promise<GetObjectCommandOutput["Body"]> {
    try {
      return (await this.#client.send(new GetObjectCommand(this.#at(key)), this.#options)).Body;
    } catch (error) {
      if (error instanceof NoSuchKey) return undefined;
      throw error;
    }
  }

  /** One that is gone already, since its owner completed or aborted it, is as good as aborted. */
  async #abort({ Key, UploadId }: MultipartUpload): Promise<void> {
    try {
      await this.#client.send(new AbortMultipartUploadCommand({ Bucket: this.#bucket, Key, UploadId }), this.#options);
    } catch (error) {
      if (!(error instanceof NoSuchUpload) && (error as Error).name !== "NoSuchUpload") throw error;
    }
  }

  #at(key: string): { Bucket: string; Key: string } {
    return { Bucket: this.#bucket, Key: this.#root + key };
  }

  async #uploadWhole(key: string, path: string, file: FileHandle, { bytes, sha256 }: ObjectRecord, signal: AbortSignal) {
    const Body = await readPart(file, 0, bytes);
    const digest = await sha256Of(Body);
    if (digest.toString("hex") !== sha256) throw uploadDamaged(path);
    const checked = { ChecksumSHA256: digest.toString("base64") };
    await this.#client.send(new PutObjectCommand({ ...this.#at(key), Body, ...checked }), { abortSignal: signal });
  }

  async #uploadParts(key: string, path: string, file: FileHandle, { bytes, sha256 }: ObjectRecord, signal: AbortSignal) {
    const at = this.#at(key);
    const { UploadId } = await this.#client.send(new CreateMultipartUploadCommand({ ...at, ChecksumAlgorithm: "SHA256" }), {
      abortSignal: signal,
    });
    const uploadPart = async (PartNumber: number, Body: Uint8Array): Promise<CompletedPart> => {
      const ChecksumSHA256 = (await sha256Of(Body)).toString("base64");
      const part = new UploadPartCommand({ ...at, UploadId, PartNumber, Body, ChecksumSHA256 });
      const { ETag } = await this.#client.send(part, { abortSignal: signal });
      return { PartNumber, ETag, ChecksumSHA256 };
    };
    const inFlight = new Set<Promise<unknown>>();
    try {
      const hash = createHash("sha256");
      const partBytes = Math.max(PART_BYTES, Math.ceil(bytes / MAX_PARTS));
      const parts: Promise<CompletedPart>[] = [];
      for (let start = 0; start < bytes; start += partBytes) {
        const part = await readPart(file, start, Math.min(partBytes, bytes - start));
        await updateHashes([hash], part);
        while (inFlight.size >= PARTS_IN_FLIGHT) await Promise.race(inFlight);
        const done = uploadPart(parts.length + 1, part);
        parts.push(done);
        const settled = done.finally(() => inFlight.delete(settled));
        inFlight.add(settled);
        // Awaited below or in the race; a failure between the two must not count as unhandled.
        settled.catch(() => undefined);
      }
      const Parts = await Promise.all(parts);
      if (hash.digest("hex") !== sha256) throw uploadDamaged(path);
      await this.#client.send(new CompleteMultipartUploadCommand({ ...at, UploadId, MultipartUpload: { Parts } }), {
        abortSignal: signal,
      });
    } catch (error) {
      await Promise.allSettled(inFlight);
      // Should this fail too, the next start removes the parts.
      await this.#client.send(new AbortMultipartUploadCommand({ ...at, UploadId }), this.#options).catch(() => undefined);
      throw error;
    }
  }
}

/** On the thread pool, so that a part of 16 MiB holds nobody up. */
async function sha256Of(bytes: Uint8Array): Promise<Buffer> {
  return Buffer.from(await webcrypto.subtle.digest("SHA-256", bytes));
}

async function readPart(file: FileHandle, start: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let filled = 0; filled < length;) {
    const { bytesRead } = await file.read(bytes, filled, length - filled, start + filled);
    if (bytesRead === 0) throw new Error(`the file ends after ${start + filled} bytes`);
    filled += bytesRead;
  }
  return bytes;
}
