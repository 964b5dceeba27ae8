import type { EventEmitter } from "node:events";
import * as grpc from "@grpc/grpc-js";
import {
  create,
  type DescMessage,
  type DescMethod,
  type DescService,
  type Message,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import { messagesOf } from "./messages-of.js";
import { isServiceError } from "./rpc-error.js";
import { serviceDefinition } from "./service-definition.js";
import { writeAll } from "./write-all.js";

/** What a handler knows of its call besides the request. */
export interface CallContext {
  /** Aborts when the call is over: cancelled, past its deadline, connection lost, or answered. */
  readonly signal: AbortSignal;
  /** Address and port of the client. */
  readonly peer: string;
  readonly metadata: grpc.Metadata;
}

/** The implementation of one method. Responses may be plain objects with the message's fields. */
export type Handler<M> = M extends { methodKind: infer K; input: infer I extends DescMessage; output: infer O extends DescMessage }
  ? K extends "unary"
    ? (request: MessageShape<I>, context: CallContext) => Promise<MessageInitShape<O>>
    : K extends "server_streaming"
      ? (request: MessageShape<I>, context: CallContext) => AsyncIterable<MessageInitShape<O>>
      : K extends "bidi_streaming"
        ? (requests: AsyncIterable<MessageShape<I>>, context: CallContext) => AsyncIterable<MessageInitShape<O>>
        : never
  : never;

/**
 * The implementation of a service. Streams honour backpressure both ways. When a call is cancelled, its request stream ends without an
 * error and its response generator is finished at its next yield.
 */
export type Handlers<S extends DescService> = { readonly [K in keyof S["method"]]: Handler<S["method"][K]> };

export interface AddServiceOptions {
  /** Turns what a handler threw into a status. Default: errors that carry a status pass, everything else is INTERNAL without details. */
  readonly mapError?: ((error: unknown) => grpc.ServiceError | Partial<grpc.StatusObject>) | undefined;
}

type ResponseStream = grpc.ServerWritableStream<Message, Message> | grpc.ServerDuplexStream<Message, Message>;
type UnknownHandler = (request: unknown, context: CallContext) => unknown;
type ErrorMapper = (error: unknown) => grpc.ServiceError | Partial<grpc.StatusObject>;

/**
 * Registers a service on a server that has not been started.
 * @throws TypeError for a method that streams requests only; no service of ours has one
 */
export function addService<S extends DescService>(
  server: grpc.Server,
  service: S,
  handlers: Handlers<S>,
  options: AddServiceOptions = {},
): void {
  const mapError = options.mapError ?? passStatus;
  const implementation: grpc.UntypedServiceImplementation = {};
  for (const method of service.methods) {
    const handler = (handlers as Record<string, UnknownHandler | undefined>)[method.localName];
    if (!handler) throw new TypeError(`${service.typeName} lacks a handler for ${method.localName}`);
    implementation[method.localName] = adaptHandler(method, handler.bind(handlers), mapError);
  }
  server.addService(serviceDefinition(service), implementation);
}

function adaptHandler(
  method: DescMethod,
  handler: UnknownHandler,
  mapError: ErrorMapper,
): grpc.UntypedServiceImplementation[string] {
  switch (method.methodKind) {
    case "unary":
      return unaryHandler(method, handler as (request: Message, context: CallContext) => Promise<Message>, mapError);
    case "server_streaming": {
      const respond = handler as (request: Message, context: CallContext) => AsyncIterable<Message>;
      return (call: grpc.ServerWritableStream<Message, Message>) => {
        const context = contextOf(call);
        void sendResponses(method, call, context, () => respond(call.request, context), mapError);
      };
    }
    case "bidi_streaming": {
      const respond = handler as (requests: AsyncIterable<Message>, context: CallContext) => AsyncIterable<Message>;
      return (call: grpc.ServerDuplexStream<Message, Message>) => {
        const context = contextOf(call);
        void sendResponses(method, call, context, () => respond(receivedRequests(call, context.signal), context), mapError);
      };
    }
    case "client_streaming":
      throw new TypeError(`${method.name}: client streaming is not supported; big data is pulled, see Tensors`);
  }
}

function unaryHandler(
  method: DescMethod,
  handler: (request: Message, context: CallContext) => Promise<Message>,
  mapError: ErrorMapper,
): grpc.handleUnaryCall<Message, Message> {
  return (call, callback) => {
    const answer = async (): Promise<Message> => create(method.output, await handler(call.request, contextOf(call)));
    answer().then(
      (response) => callback(null, response),
      (error: unknown) => callback(mapError(error)),
    );
  };
}

async function sendResponses(
  method: DescMethod,
  call: ResponseStream,
  context: CallContext,
  respond: () => AsyncIterable<Message>,
  mapError: ErrorMapper,
): Promise<void> {
  try {
    await writeAll(call, messagesOf(method.output, respond()), context.signal);
    call.end();
  } catch (error) {
    // grpc-js flushes what was written, then ends the call with the status of an emitted error.
    if (!context.signal.aborted) call.emit("error", mapError(error));
  }
}

async function* receivedRequests(
  call: grpc.ServerDuplexStream<Message, Message>,
  signal: AbortSignal,
): AsyncGenerator<Message, void, undefined> {
  try {
    // Reading to an early end must not destroy the call: responses may still follow.
    for await (const request of call.iterator({ destroyOnReturn: false })) yield request as Message;
  } catch (error) {
    // A cancelled call is destroyed, which its reader sees as a premature close.
    if (!signal.aborted) throw error;
  }
}

function contextOf(call: grpc.ServerUnaryCall<Message, Message> | ResponseStream): CallContext {
  const controller = new AbortController();
  if (call.cancelled) controller.abort();
  else (call as EventEmitter).once("cancelled", () => controller.abort());
  return { signal: controller.signal, peer: call.getPeer(), metadata: call.metadata };
}

function passStatus(error: unknown): grpc.ServiceError | Partial<grpc.StatusObject> {
  return isServiceError(error) ? error : { code: grpc.status.INTERNAL, details: "internal error" };
}
