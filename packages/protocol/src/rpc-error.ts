import * as grpc from "@grpc/grpc-js";

/**
 * A failed call, as grpc-js shapes it, for errors that this package finds itself. `reason` is the stable code in SCREAMING_SNAKE that
 * programs may act upon; it becomes the reason of the google.rpc.ErrorInfo when the error crosses the wire.
 */
export class RpcError extends Error implements grpc.ServiceError {
  override readonly name = "RpcError";
  readonly code: grpc.status;
  readonly details: string;
  readonly metadata: grpc.Metadata;
  readonly reason: string;

  constructor(code: grpc.status, reason: string, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
    this.details = message;
    this.metadata = new grpc.Metadata();
    this.reason = reason;
  }
}

/** Whether an error carries a gRPC status: one of grpc-js or an RpcError. Node's own errors have string codes. */
export function isServiceError(error: unknown): error is grpc.ServiceError {
  return error instanceof Error && typeof (error as { code?: unknown }).code === "number" && "details" in error;
}
