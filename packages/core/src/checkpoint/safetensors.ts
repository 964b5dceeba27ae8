import { SegueError } from "../errors.js";

/** Element types that are read and written, with their bytes; the names are the format's. */
const ELEMENT_BYTES = { F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, I32: 4, U8: 1 } as const;

export type SafetensorsDtype = keyof typeof ELEMENT_BYTES;

export interface SafetensorsEntry {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
}

/** Where an entry's bytes lie, counted from the end of the header. */
export interface SafetensorsRange extends SafetensorsEntry {
  readonly begin: number;
  readonly end: number;
}

export interface SafetensorsTensor extends SafetensorsEntry {
  /** Row-major, little-endian. */
  readonly data: Uint8Array;
}

const MAX_HEADER_BYTES = 100_000_000;

/**
 * The start of a file whose tensors follow back to back in the order given, so that a writer can stream: write this, then the data.
 * Padded with spaces so that the data starts at a multiple of 8 bytes.
 */
export function safetensorsHeader(entries: readonly SafetensorsEntry[], metadata?: Readonly<Record<string, string>>): Uint8Array {
  const fields = new Map<string, unknown>();
  if (metadata) fields.set("__metadata__", metadata);
  let begin = 0;
  for (const entry of entries) {
    if (fields.has(entry.name)) throw invalid(`two tensors are named ${entry.name}`);
    const end = begin + byteLength(entry);
    fields.set(entry.name, { dtype: entry.dtype, shape: entry.shape, data_offsets: [begin, end] });
    begin = end;
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(fields)));
  const padded = Math.ceil(json.length / 8) * 8;
  const header = new Uint8Array(8 + padded).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(padded), true);
  header.set(json, 8);
  return header;
}

/** @throws SegueError SAFETENSORS_INVALID when data and shape of a tensor disagree or two share a name */
export function encodeSafetensors(tensors: readonly SafetensorsTensor[], metadata?: Readonly<Record<string, string>>): Uint8Array {
  const header = safetensorsHeader(tensors, metadata);
  const file = new Uint8Array(header.length + tensors.reduce((sum, tensor) => sum + byteLength(tensor), 0));
  file.set(header);
  let offset = header.length;
  for (const tensor of tensors) {
    if (tensor.data.length !== byteLength(tensor))
      throw invalid(`${tensor.name} has ${tensor.data.length} bytes, its shape needs ${byteLength(tensor)}`);
    file.set(tensor.data, offset);
    offset += tensor.data.length;
  }
  return file;
}

/**
 * Length in bytes of the header's JSON, from the first 8 bytes of a file; the data starts 8 bytes further.
 * @throws SegueError SAFETENSORS_INVALID
 */
export function safetensorsHeaderLength(prefix: Uint8Array): number {
  if (prefix.length < 8) throw invalid("the file is shorter than 8 bytes");
  const length = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true);
  if (length > MAX_HEADER_BYTES) throw invalid(`the header claims ${length.toString()} bytes`);
  return Number(length);
}

/**
 * Checks a header's JSON against the number of data bytes that follow it: the tensors must cover them without gap or overlap.
 * @returns the tensors in the order of their data
 * @throws SegueError SAFETENSORS_INVALID
 */
export function readSafetensorsHeader(json: Uint8Array, dataBytes: number): SafetensorsRange[] {
  const ranges: SafetensorsRange[] = [];
  for (const [name, value] of Object.entries(parseObject(json))) {
    if (name !== "__metadata__") ranges.push(readEntry(name, value));
  }
  ranges.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let position = 0;
  for (const { name, begin, end } of ranges) {
    if (begin !== position) throw invalid(`${name} starts at byte ${begin}, ${position} was expected`);
    position = end;
  }
  if (position !== dataBytes) throw invalid(`the tensors need ${position} bytes of data, ${dataBytes} follow the header`);
  return ranges;
}

/**
 * Reads a whole file; the tensors' data are views into it.
 * @throws SegueError SAFETENSORS_INVALID
 */
export function decodeSafetensors(file: Uint8Array): Map<string, SafetensorsTensor> {
  const headerBytes = safetensorsHeaderLength(file);
  const dataStart = 8 + headerBytes;
  if (file.length < dataStart) throw invalid(`the header claims ${headerBytes} bytes, the file has ${file.length - 8}`);
  const data = file.subarray(dataStart);
  const ranges = readSafetensorsHeader(file.subarray(8, dataStart), data.length);
  return new Map(ranges.map(({ begin, end, ...entry }) => [entry.name, { ...entry, data: data.subarray(begin, end) }]));
}

/** A float tensor's values as float32 (a copy). @throws SegueError SAFETENSORS_INVALID for other element types */
export function tensorToFloat32(tensor: SafetensorsTensor): Float32Array {
  const { data, dtype } = tensor;
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  const values = new Float32Array(data.length / ELEMENT_BYTES[dtype]);
  if (dtype === "F32") {
    new Uint8Array(values.buffer).set(data);
  } else if (dtype === "F64") {
    for (let i = 0; i < values.length; i++) values[i] = view.getFloat64(8 * i, true);
  } else if (dtype === "F16") {
    for (let i = 0; i < values.length; i++) values[i] = fromFloat16(view.getUint16(2 * i, true));
  } else if (dtype === "BF16") {
    // A bfloat16 is the upper half of a float32.
    const bits = new Uint32Array(values.buffer);
    for (let i = 0; i < values.length; i++) bits[i] = view.getUint16(2 * i, true) << 16;
  } else {
    throw invalid(`${tensor.name} holds ${dtype}, not floats`);
  }
  return values;
}

/** Sign, 5 bits of exponent biased by 15, 10 bits of fraction (IEEE 754 binary16); float32 holds every one exactly. */
function fromFloat16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25));
}

function readEntry(name: string, value: unknown): SafetensorsRange {
  const {
    dtype,
    shape,
    data_offsets: offsets,
  } = (typeof value === "object" && value !== null ? value : {}) as Record<string, unknown>;
  if (typeof dtype !== "string" || !Object.hasOwn(ELEMENT_BYTES, dtype)) {
    throw invalid(`${name} has the unknown dtype ${JSON.stringify(dtype) ?? "(none)"}`);
  }
  if (!isSizes(shape)) throw invalid(`${name} has no proper shape`);
  if (!isSizes(offsets) || offsets.length !== 2) throw invalid(`${name} has no proper data_offsets`);
  const entry = { name, dtype: dtype as SafetensorsDtype, shape };
  const [begin = 0, end = 0] = offsets;
  if (end - begin !== byteLength(entry)) {
    throw invalid(`${name} covers ${end - begin} bytes, ${dtype} [${shape.join(", ")}] needs ${byteLength(entry)}`);
  }
  return { ...entry, begin, end };
}

function parseObject(json: Uint8Array): object {
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(json));
  } catch (cause) {
    throw invalid("the header is not JSON", cause);
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) throw invalid("the header is not a JSON object");
  return parsed;
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && (size as number) >= 0);
}

function byteLength({ dtype, shape }: SafetensorsEntry): number {
  return shape.reduce((product, extent) => product * extent, ELEMENT_BYTES[dtype]);
}

function invalid(reason: string, cause?: unknown): SegueError {
  return new SegueError("SAFETENSORS_INVALID", `Not a sound safetensors file: ${reason}.`, { status: "DATA_LOSS", cause });
}
