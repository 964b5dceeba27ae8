import { createHash, timingSafeEqual } from "node:crypto";
import * as grpc from "@grpc/grpc-js";
import { SegueError } from "@segue/core";
import { toServiceError } from "./service-error.js";

/** Unary calls one peer address may make: `perSecond` on average, `burst` at once. */
export interface RateLimit {
  readonly perSecond: number;
  readonly burst: number;
}

/** Refuses calls without the bearer token, except those to public services. */
export function requireToken(token: string, publicServices: ReadonlySet<string>): grpc.ServerInterceptor {
  const expected = sha256(token);
  return guard((method, metadata) => {
    if (publicServices.has(serviceOf(method))) return undefined;
    const given = /^Bearer (.+)$/i.exec(String(metadata.get("authorization")[0] ?? ""))?.[1];
    // Hashes have one length, so the comparison tells nothing about the token's.
    if (given !== undefined && timingSafeEqual(sha256(given), expected)) return undefined;
    return new SegueError("UNAUTHENTICATED", "This call needs the cluster's token; set SEGUE_TOKEN_FILE.", {
      status: "UNAUTHENTICATED",
    });
  });
}

/** Refuses unary calls beyond the limit with RESOURCE_EXHAUSTED. Streams are bounded by their own backpressure. */
export function limitRate(limit: RateLimit, publicServices: ReadonlySet<string>): grpc.ServerInterceptor {
  const buckets = new TokenBuckets(limit);
  return guard((method, _metadata, call) => {
    if (method.requestStream || method.responseStream || publicServices.has(serviceOf(method))) return undefined;
    const peer = call.getPeer();
    if (buckets.take(peer.slice(0, peer.lastIndexOf(":")), performance.now())) return undefined;
    return new SegueError("RATE_LIMITED", `More than ${limit.perSecond} calls a second from ${peer}; slow down.`, {
      status: "RESOURCE_EXHAUSTED",
      retryable: true,
    });
  });
}

/** One token bucket per key. Keys that have been quiet long enough to be full again are forgotten. */
export class TokenBuckets {
  static readonly MAX_KEYS = 10_000;
  readonly #limit: RateLimit;
  readonly #buckets = new Map<string, { tokens: number; atMs: number }>();

  constructor(limit: RateLimit) {
    this.#limit = limit;
  }

  /** Whether the key may proceed now; takes one token if so. */
  take(key: string, nowMs: number): boolean {
    const bucket = this.#buckets.get(key) ?? { tokens: this.#limit.burst, atMs: nowMs };
    const tokens = this.#refilled(bucket, nowMs);
    const allowed = tokens >= 1;
    // Deleted first so that the map's order is that of last use.
    this.#buckets.delete(key);
    this.#buckets.set(key, { tokens: allowed ? tokens - 1 : tokens, atMs: nowMs });
    this.#forgetFull(nowMs);
    return allowed;
  }

  #refilled(bucket: { tokens: number; atMs: number }, nowMs: number): number {
    return Math.min(this.#limit.burst, bucket.tokens + ((nowMs - bucket.atMs) / 1000) * this.#limit.perSecond);
  }

  #forgetFull(nowMs: number): void {
    for (const [key, bucket] of this.#buckets) {
      if (this.#refilled(bucket, nowMs) < this.#limit.burst && this.#buckets.size <= TokenBuckets.MAX_KEYS) return;
      this.#buckets.delete(key);
    }
  }
}

type Method = grpc.ServerMethodDefinition<unknown, unknown>;
type Check = (method: Method, metadata: grpc.Metadata, call: grpc.ServerInterceptingCallInterface) => SegueError | undefined;

function guard(check: Check): grpc.ServerInterceptor {
  return (method, call) =>
    new grpc.ServerInterceptingCall(call, {
      start: (next) =>
        next({
          onReceiveMetadata: (metadata, proceed) => {
            const refusal = check(method, metadata, call);
            if (refusal) call.sendStatus(toServiceError(refusal));
            else proceed(metadata);
          },
        }),
    });
}

function serviceOf(method: Method): string {
  return method.path.split("/")[1] ?? "";
}

function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
