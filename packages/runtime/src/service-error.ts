import * as grpc from "@grpc/grpc-js";
import { SegueError, type StatusName } from "@segue/core";
import { isServiceError, readStatusDetails, RpcError, statusDetailsMetadata, type StatusDetails } from "@segue/protocol";

const DOMAIN = "segue.dev";
/** HTTP/2 peers refuse headers beyond 16 KiB or so; base64 adds a third. */
const MAX_VIOLATIONS = 40;
const MAX_TEXT = 200;
const MAX_MESSAGE = 2_000;
const RETRY_AFTER_MS = 1_000;

/**
 * Any error as a gRPC status with google.rpc details: ErrorInfo (reason = the SegueError's code), BadRequest for violations, RetryInfo
 * where a retry may help. What is no SegueError and carries no status becomes INTERNAL without a word about its cause.
 */
export function toServiceError(error: unknown): grpc.ServiceError {
  if (error instanceof SegueError) {
    return serviceError(grpc.status[error.status], error.message, {
      reason: error.code,
      domain: DOMAIN,
      violations: boundedViolations(error),
      retryAfterMs: error.retryable ? RETRY_AFTER_MS : undefined,
    });
  }
  if (error instanceof RpcError) {
    return serviceError(error.code, error.details, { reason: error.reason, domain: DOMAIN, violations: [] });
  }
  if (isServiceError(error)) return error;
  return serviceError(grpc.status.INTERNAL, "internal error", { reason: "INTERNAL", domain: DOMAIN, violations: [] });
}

/** Any error as a SegueError: what toServiceError sent, a bare gRPC status (its name becomes the code), or a local failure (INTERNAL). */
export function fromServiceError(error: unknown): SegueError {
  if (error instanceof SegueError) return error;
  if (!isServiceError(error)) {
    return new SegueError("INTERNAL", error instanceof Error ? error.message : String(error), { status: "INTERNAL", cause: error });
  }
  const status = statusName(error.code);
  const details = readStatusDetails(error.metadata);
  const reason = error instanceof RpcError ? error.reason : details?.domain === DOMAIN ? details.reason : status;
  return new SegueError(reason, error.details, {
    status,
    ...(details && details.violations.length > 0 ? { violations: details.violations } : {}),
    retryable: details?.retryAfterMs !== undefined || status === "UNAVAILABLE",
    cause: error,
  });
}

function serviceError(code: grpc.status, message: string, details: StatusDetails): grpc.ServiceError {
  const text = clip(message, MAX_MESSAGE);
  const metadata = statusDetailsMetadata(code, text, details);
  return Object.assign(new Error(text), { code, details: text, metadata });
}

function boundedViolations(error: SegueError): StatusDetails["violations"] {
  return (error.violations ?? [])
    .slice(0, MAX_VIOLATIONS)
    .map(({ field, description }) => ({ field: clip(field, MAX_TEXT), description: clip(description, MAX_TEXT) }));
}

function clip(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length - 3)}...`;
}

function statusName(code: grpc.status): StatusName {
  const name = grpc.status[code] as StatusName | "OK" | undefined;
  return name === undefined || name === "OK" ? "UNKNOWN" : name;
}
