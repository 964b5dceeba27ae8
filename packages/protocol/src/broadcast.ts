import { create, toBinary, type DescMessage, type Message, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";

const encodings = new WeakMap<Message, Uint8Array>();

/** A message for many receivers: it is encoded here, once, instead of for each of them. It must not change any more. */
export function broadcastMessage<D extends DescMessage>(schema: D, init: MessageInitShape<D>): MessageShape<D> {
  const message = create(schema, init);
  encodings.set(message, toBinary(schema, message));
  return message;
}

/** The bytes of a message on the wire. */
export function encodeMessage(schema: DescMessage, message: Message): Uint8Array {
  return encodings.get(message) ?? toBinary(schema, message);
}
