import { Metadata, type status } from "@grpc/grpc-js";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { anyPack, anyUnpack, durationFromMs, durationMs, type Any } from "@bufbuild/protobuf/wkt";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "./gen/google/rpc/status_pb.js";

/** What a status says beyond code and message, in google.rpc's terms. */
export interface StatusDetails {
  /** ErrorInfo.reason: the stable code of the error. */
  readonly reason: string;
  readonly domain: string;
  /** BadRequest.field_violations. */
  readonly violations: readonly { readonly field: string; readonly description: string }[];
  /** RetryInfo.retry_delay; undefined: no advice to retry. */
  readonly retryAfterMs?: number | undefined;
}

/** The trailer that carries an encoded google.rpc.Status. */
const DETAILS_KEY = "grpc-status-details-bin";

/** The trailing metadata of a failed call: a google.rpc.Status with ErrorInfo, BadRequest and RetryInfo. */
export function statusDetailsMetadata(code: status, message: string, details: StatusDetails): Metadata {
  const packed: Any[] = [anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason: details.reason, domain: details.domain }))];
  if (details.violations.length > 0) {
    packed.push(
      anyPack(BadRequestSchema, create(BadRequestSchema, { fieldViolations: details.violations.map((each) => ({ ...each })) })),
    );
  }
  if (details.retryAfterMs !== undefined) {
    packed.push(anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay: durationFromMs(details.retryAfterMs) })));
  }
  const metadata = new Metadata();
  metadata.set(DETAILS_KEY, Buffer.from(toBinary(StatusSchema, create(StatusSchema, { code, message, details: packed }))));
  return metadata;
}

/** Reads what statusDetailsMetadata wrote, here or in any other gRPC implementation; undefined if there is no ErrorInfo. */
export function readStatusDetails(metadata: Metadata): StatusDetails | undefined {
  const encoded = metadata.get(DETAILS_KEY)[0];
  if (!Buffer.isBuffer(encoded)) return undefined;
  let packed: readonly Any[];
  try {
    packed = fromBinary(StatusSchema, encoded).details;
  } catch {
    // A damaged trailer must not hide the status it belongs to.
    return undefined;
  }
  const first = <T>(unpack: (any: Any) => T | undefined): T | undefined => packed.map(unpack).find((value) => value !== undefined);
  const info = first((any) => anyUnpack(any, ErrorInfoSchema));
  if (!info) return undefined;
  const badRequest = first((any) => anyUnpack(any, BadRequestSchema));
  const retry = first((any) => anyUnpack(any, RetryInfoSchema));
  return {
    reason: info.reason,
    domain: info.domain,
    violations: (badRequest?.fieldViolations ?? []).map(({ field, description }) => ({ field, description })),
    retryAfterMs: retry?.retryDelay && durationMs(retry.retryDelay),
  };
}
