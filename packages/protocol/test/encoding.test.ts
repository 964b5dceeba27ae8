import assert from "node:assert/strict";
import { randomFillSync } from "node:crypto";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { encodeMessage, messageInPieces } from "../src/broadcast.js";
import { bytesField, fields, messageField } from "../src/encoding-pieces.js";
import { PullResponseSchema, TensorChunkSchema } from "../src/gen/segue/v1/tensors_pb.js";

describe("a message in pieces", () => {
  for (const length of [0, 1, 127, 128, 70_000]) {
    it(`is encoded as the message itself, with ${length} bytes`, () => {
      const data = randomFillSync(new Uint8Array(length));
      const chunk = [...fields(TensorChunkSchema, { offset: 300n }), ...bytesField(TensorChunkSchema.field.data.number, data)];
      const inPieces = messageInPieces(PullResponseSchema, messageField(PullResponseSchema.field.chunk.number, chunk));
      const encoding = encodeMessage(PullResponseSchema, inPieces);
      const message = create(PullResponseSchema, { part: { case: "chunk", value: { offset: 300n, data } } });
      assert.deepEqual(fromBinary(PullResponseSchema, encoding), message);
      // An empty field may be left out.
      if (length > 0) assert.deepEqual(Buffer.from(encoding), Buffer.from(toBinary(PullResponseSchema, message)));
    });
  }
});
