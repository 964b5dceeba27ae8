import { create, toBinary, type DescMessage, type MessageInitShape } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";

/** Parts of a message's encoding that belong one behind the other; large arrays among them are not copied. */
export type Pieces = readonly Uint8Array[];

/** Some fields of a message. */
export function fields<D extends DescMessage>(schema: D, init: MessageInitShape<D>): Pieces {
  return [toBinary(schema, create(schema, init))];
}

export function bytesField(number: number, bytes: Uint8Array): Pieces {
  return [start(number, bytes.byteLength), bytes];
}

/** A field that is a message, given by the pieces of its encoding. */
export function messageField(number: number, pieces: Pieces): Pieces {
  const length = pieces.reduce((sum, { byteLength }) => sum + byteLength, 0);
  return [start(number, length), ...pieces];
}

function start(number: number, length: number): Uint8Array {
  return new BinaryWriter().tag(number, WireType.LengthDelimited).uint32(length).finish();
}
