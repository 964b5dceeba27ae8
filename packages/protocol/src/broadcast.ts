import { create, toBinary, type DescMessage, type Message, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import type { Pieces } from "./encoding-pieces.js";

const encodings = new WeakMap<Message, Uint8Array>();
const inPieces = new WeakMap<Message, Pieces>();
let scratch = new Uint8Array();

/** A message for many receivers: it is encoded here, once, instead of for each of them. It must not change any more. */
export function broadcastMessage<D extends DescMessage>(schema: D, init: MessageInitShape<D>): MessageShape<D> {
  const message = create(schema, init);
  encodings.set(message, toBinary(schema, message));
  return message;
}

/**
 * A message given by the pieces of its encoding, which are copied once, when it is sent; protobuf-es grows a buffer by doubling and copies
 * it again in the end, which for tensors is most of a sender's work. The fields of the message itself stay empty.
 */
export function messageInPieces<D extends DescMessage>(schema: D, pieces: Pieces): MessageShape<D> {
  const message = create(schema);
  inPieces.set(message, pieces);
  return message;
}

/** The bytes of a message on the wire; of one in pieces only until the next such message is encoded. */
export function encodeMessage(schema: DescMessage, message: Message): Uint8Array {
  const pieces = inPieces.get(message);
  if (pieces) return joined(pieces);
  return encodings.get(message) ?? toBinary(schema, message);
}

/** The same memory every time: gRPC copies what it sends at once, and a megabyte for each message would keep the garbage collector busy. */
function joined(pieces: Pieces): Uint8Array {
  const length = pieces.reduce((sum, { byteLength }) => sum + byteLength, 0);
  if (scratch.byteLength < length) scratch = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    scratch.set(piece, at);
    at += piece.byteLength;
  }
  return scratch.subarray(0, length);
}
