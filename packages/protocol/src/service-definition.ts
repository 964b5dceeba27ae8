import type { MethodDefinition, ServiceDefinition, UntypedServiceImplementation } from "@grpc/grpc-js";
import {
  fromBinary,
  toBinary,
  type DescFile,
  type DescMessage,
  type DescMethod,
  type DescService,
  type Message,
} from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { encodeMessage } from "./broadcast.js";

/** A method as grpc-js wants it described. */
export type RpcDefinition = MethodDefinition<Message, Message>;

/** How grpc-js encodes, decodes and addresses one method. */
export function methodDefinition(method: DescMethod): RpcDefinition {
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    requestStream: method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming",
    responseStream: method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming",
    requestSerialize: encoder(method.input),
    requestDeserialize: decoder(method.input),
    responseSerialize: encoder(method.output),
    responseDeserialize: decoder(method.output),
    originalName: method.localName,
  };
}

/** The grpc-js definition of a protobuf-es service, keyed by the methods' names in TypeScript. */
export function serviceDefinition(service: DescService): ServiceDefinition<UntypedServiceImplementation> {
  return Object.fromEntries(service.methods.map((method) => [method.localName, methodDefinition(method)]));
}

/** The FileDescriptorProtos, encoded, of the services and of everything their files import: what gRPC reflection serves. */
export function encodedFileDescriptors(services: readonly DescService[]): Buffer[] {
  const files = new Map<string, DescFile>();
  const visit = (file: DescFile): void => {
    if (files.has(file.name)) return;
    files.set(file.name, file);
    file.dependencies.forEach(visit);
  };
  for (const service of services) visit(service.file);
  return [...files.values()].map((file) => bufferView(toBinary(FileDescriptorProtoSchema, file.proto)));
}

function encoder(schema: DescMessage): (message: Message) => Buffer {
  return (message) => bufferView(encodeMessage(schema, message));
}

/** Bytes fields of the result are views of the received buffer; they may start at any offset. */
function decoder(schema: DescMessage): (bytes: Buffer) => Message {
  // A plain view, since a Buffer would make Buffers of the bytes fields, whose slice() shares memory.
  return (bytes) => fromBinary(schema, new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength));
}

function bufferView(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
