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
import { onAbort } from "./abort.js";
import { channelOptions, channelSettings, type ChannelSettings } from "./channel-settings.js";
import { messagesOf } from "./messages-of.js";
import { RpcError } from "./rpc-error.js";
import { methodDefinition, type RpcDefinition } from "./service-definition.js";
import { writeAll } from "./write-all.js";

export interface CallOptions {
  /** Cancels the call, which then fails with CANCELLED. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds the call may take. Unary calls default to the channel's unaryDeadlineMs, streams to no limit. */
  readonly deadlineMs?: number | undefined;
  readonly metadata?: grpc.Metadata | undefined;
}

/** How one method is called. Requests may be plain objects with the message's fields. */
export type ClientMethod<M> = M extends {
  methodKind: infer K;
  input: infer I extends DescMessage;
  output: infer O extends DescMessage;
}
  ? K extends "unary"
    ? (request: MessageInitShape<I>, options?: CallOptions) => Promise<MessageShape<O>>
    : K extends "server_streaming"
      ? (request: MessageInitShape<I>, options?: CallOptions) => AsyncIterable<MessageShape<O>>
      : K extends "bidi_streaming"
        ? (requests: AsyncIterable<MessageInitShape<I>>, options?: CallOptions) => AsyncIterable<MessageShape<O>>
        : never
  : never;

/**
 * A typed client. Calls fail with grpc-js ServiceErrors. A streaming call starts when its iteration starts; leaving the loop cancels it;
 * a stream that was cancelled through its signal throws CANCELLED, since a silent end would look like a complete stream.
 */
export type Client<S extends DescService> = { readonly [K in keyof S["method"]]: ClientMethod<S["method"][K]> } & {
  /** Closes the channel; calls in flight finish first. */
  close(): void;
};

/**
 * A client of one service at `host:port`. It connects at the first call and again after every loss of the connection.
 * @throws TypeError for unknown settings
 */
export function createClient<S extends DescService>(
  service: S,
  address: string,
  credentials: grpc.ChannelCredentials,
  settings?: ChannelSettings,
): Client<S> {
  const complete = channelSettings(settings);
  const channel = new grpc.Client(address, credentials, channelOptions(complete));
  const methods = service.methods.map((method) => [method.localName, clientMethod(channel, method, complete)]);
  return Object.assign(Object.fromEntries(methods), { close: () => channel.close() }) as Client<S>;
}

function clientMethod(channel: grpc.Client, method: DescMethod, settings: Required<ChannelSettings>): unknown {
  const rpc = methodDefinition(method);
  const metadataOf = (options: CallOptions): grpc.Metadata => {
    const metadata = options.metadata?.clone() ?? new grpc.Metadata();
    if (settings.bearerToken !== undefined) metadata.set("authorization", `Bearer ${settings.bearerToken}`);
    return metadata;
  };
  switch (method.methodKind) {
    case "unary":
      return (request: Message, options: CallOptions = {}) =>
        callUnary(channel, rpc, create(method.input, request), metadataOf(options), {
          ...options,
          deadlineMs: options.deadlineMs ?? settings.unaryDeadlineMs,
        });
    case "server_streaming":
      return (request: Message, options: CallOptions = {}) =>
        receive(options.signal, () =>
          channel.makeServerStreamRequest(
            rpc.path,
            rpc.requestSerialize,
            rpc.responseDeserialize,
            create(method.input, request),
            metadataOf(options),
            deadlineOf(options),
          ),
        );
    case "bidi_streaming":
      return (requests: AsyncIterable<Message>, options: CallOptions = {}) => {
        const sent = new SentRequests(method.input, requests);
        return receive(
          options.signal,
          () =>
            sent.start(
              channel.makeBidiStreamRequest(
                rpc.path,
                rpc.requestSerialize,
                rpc.responseDeserialize,
                metadataOf(options),
                deadlineOf(options),
              ),
            ),
          sent,
        );
      };
    case "client_streaming":
      return () => {
        throw new TypeError(`${method.name}: client streaming is not supported; big data is pulled, see Tensors`);
      };
  }
}

function callUnary(
  channel: grpc.Client,
  rpc: RpcDefinition,
  request: Message,
  metadata: grpc.Metadata,
  options: CallOptions,
): Promise<Message> {
  return new Promise((resolve, reject) => {
    if (options.signal?.aborted) {
      reject(cancelled());
      return;
    }
    const call = channel.makeUnaryRequest(
      rpc.path,
      rpc.requestSerialize,
      rpc.responseDeserialize,
      request,
      metadata,
      deadlineOf(options),
      (error, response) => {
        forget();
        if (error) reject(error);
        else resolve(response as Message);
      },
    );
    const forget = onAbort(options.signal, () => call.cancel());
  });
}

/** The requests of one bidi call, pumped beside the reading of its responses. */
class SentRequests {
  readonly #schema: DescMessage;
  readonly #requests: AsyncIterable<Message>;
  readonly #over = new AbortController();
  /** What the caller's iterable threw, which explains the CANCELLED that the call then ends with. */
  failure: unknown;

  constructor(schema: DescMessage, requests: AsyncIterable<Message>) {
    this.#schema = schema;
    this.#requests = requests;
  }

  start(call: grpc.ClientDuplexStream<Message, Message>): grpc.ClientDuplexStream<Message, Message> {
    writeAll(call, messagesOf(this.#schema, this.#requests), this.#over.signal).then(
      () => call.end(),
      (error: unknown) => {
        this.failure = error;
        call.cancel();
      },
    );
    return call;
  }

  /** Stops the pump: the call is over. */
  stop(): void {
    this.#over.abort();
  }
}

async function* receive(
  signal: AbortSignal | undefined,
  start: () => grpc.ClientReadableStream<Message>,
  sent?: SentRequests,
): AsyncGenerator<Message, void, undefined> {
  if (signal?.aborted) throw cancelled();
  const call = start();
  // Cancelling below makes the call emit an error that nobody waits for any more.
  call.on("error", () => undefined);
  const forget = onAbort(signal, () => call.cancel());
  try {
    for await (const response of call.iterator({ destroyOnReturn: false })) yield response as Message;
  } catch (error) {
    throw sent?.failure ?? error;
  } finally {
    forget();
    sent?.stop();
    call.cancel();
  }
}

function deadlineOf(options: CallOptions): grpc.CallOptions {
  return options.deadlineMs === undefined ? {} : { deadline: Date.now() + options.deadlineMs };
}

function cancelled(): RpcError {
  return new RpcError(grpc.status.CANCELLED, "CANCELLED", "the call was cancelled before it started");
}
