import { createHash } from "node:crypto";
import { Client, credentials, Metadata, type ClientDuplexStream } from "@grpc/grpc-js";
import { serviceDefinition, Workers, type AttachRequest, type AttachResponse } from "@segue/protocol";

/** Smaller messages differ from worker to worker. */
const LEAST_SHARED_BYTES = 32 * 1024;

const method = serviceDefinition(Workers)["attach"];
let shared: { readonly sha256: string; readonly message: AttachResponse } | undefined;

export interface AttachStream {
  readonly call: ClientDuplexStream<AttachRequest, AttachResponse>;
  close(): void;
}

/**
 * Opens a worker's stream on a connection of its own. A Join of a thousand members takes milliseconds to decode; real workers do that on a
 * thousand machines at once, simulated ones of one process decode equal Joins once.
 */
export function openAttachStream(coordinator: string): AttachStream {
  if (!method) throw new Error("the Workers service has no attach");
  const client = new Client(coordinator, credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.enable_http_proxy": 0,
  });
  const call = client.makeBidiStreamRequest(method.path, method.requestSerialize, decode, new Metadata());
  return {
    call: call as ClientDuplexStream<AttachRequest, AttachResponse>,
    close: () => {
      call.cancel();
      client.close();
    },
  };
}

function decode(bytes: Buffer): AttachResponse {
  if (bytes.length < LEAST_SHARED_BYTES) return method?.responseDeserialize(bytes) as AttachResponse;
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  if (shared?.sha256 !== sha256) shared = { sha256, message: method?.responseDeserialize(bytes) as AttachResponse };
  return shared.message;
}
