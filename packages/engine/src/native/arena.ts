import type { Device } from "../devices/device.js";
import type { Take } from "./buffers.js";

/** Every buffer begins on a cache line. */
const LINE_FLOATS = 16;

/** Shapes whose views are remembered; an evaluation over many lengths must not collect them for ever. */
const REMEMBERED_SHAPES = 64;

const padded = (length: number): number => Math.ceil(length / LINE_FLOATS) * LINE_FLOATS;

/** What decides how much memory buffers take. */
export type BufferSizes = Pick<Device<never, never>, "bufferFloats">;

/** Floats that an arena needs for the buffers `carve` takes. */
export function arenaFloats(carve: (take: Take<undefined>) => unknown, device: BufferSizes = {}): number {
  let floats = 0;
  carve((length, kind = "float") => {
    floats += padded(device.bufferFloats?.(length, kind) ?? length);
    return undefined;
  });
  return floats;
}

/**
 * One stretch of device memory shared by all shapes of segments: as large as the largest shape needs and cut per shape, so that a step
 * allocates nothing once its shape was seen.
 */
export class Arena<F, I> {
  readonly #device: Device<F, I>;
  readonly #views = new Map<string, unknown>();
  #memory: F;
  #floats = 0;

  constructor(device: Device<F, I>) {
    this.#device = device;
    this.#memory = device.floats(0);
  }

  /** Of all buffers. */
  get memory(): F {
    return this.#memory;
  }

  /** Floats held. */
  get floats(): number {
    return this.#floats;
  }

  /** Gives the memory back. */
  release(): void {
    this.#views.clear();
    this.#device.free?.(this.#memory);
    this.#memory = this.#device.floats(0);
    this.#floats = 0;
  }

  /** The buffers that `carve` takes, the same ones for the same key. Their contents are those of whichever shape came last. */
  buffers<B>(key: string, carve: (take: Take<F>) => B): B {
    const known = this.#views.get(key) as B | undefined;
    if (known !== undefined) return known;
    const floats = arenaFloats((take) => carve(take as unknown as Take<F>), this.#device);
    if (floats > this.#floats) {
      // Nothing is held should the larger stretch not be had.
      this.release();
      this.#memory = this.#device.floats(floats);
      this.#floats = floats;
    } else if (this.#views.size === REMEMBERED_SHAPES) {
      this.#views.clear();
    }
    let offset = 0;
    const views = carve((length, kind = "float") => {
      const view = this.#device.buffer?.(this.#memory, offset, length, kind) ?? this.#device.slice(this.#memory, offset, length);
      offset += padded(this.#device.bufferFloats?.(length, kind) ?? length);
      return view;
    });
    this.#views.set(key, views);
    return views;
  }
}
