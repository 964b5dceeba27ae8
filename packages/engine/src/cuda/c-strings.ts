import koffi from "koffi";

/** A C array of zero-terminated strings, alive as long as this object. */
export class StringArray {
  readonly pointers: BigUint64Array;
  readonly strings: readonly Buffer[];

  constructor(strings: readonly string[]) {
    this.strings = strings.map((text) => Buffer.from(`${text}\0`, "utf8"));
    this.pointers = BigUint64Array.from(this.strings, (bytes) => koffi.address(bytes));
  }
}
