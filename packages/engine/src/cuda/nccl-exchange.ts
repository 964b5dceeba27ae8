import type { ReductionNode } from "@segue/core";
import { squaresFloats, type DeviceExchange, type DeviceSlices } from "../exchange/device-exchange.js";
import { sumOrder, type SumOrder } from "../exchange/device-sharing.js";
import { exchangeTimedOut, type ExchangeMember, type ExchangeOptions, type ExchangePlan } from "../exchange/gradient-exchange.js";
import { pollUntil } from "../exchange/pause.js";
import type { CudaSharing } from "./cuda-sharing.js";
import type { Address } from "./driver.js";
import { sliceOf, type CudaFloats } from "./floats.js";
import { loadNccl, NCCL_IN_PROGRESS, NCCL_SUCCESS, ncclFailed, type Nccl } from "./nccl-library.js";
import type { CudaRuntime } from "./runtime.js";

const FLOAT_BYTES = 4;
const BF16_BYTES = 2;
/** Vectors begin where rows of four floats may be read at once. */
const ALIGNED_FLOATS = 64;

/** Part of a vector on its way to or from a member. */
interface Transfer {
  readonly rank: number;
  readonly address: Address;
  readonly bytes: number;
}

/**
 * Exchange between GPUs by NCCL, one communicator a generation: slices of the nodes go to whoever adds them, and the sums come back, as floats
 * or rounded to bf16. NCCL moves bytes and adds nothing, so the bits are those of any other transport. Everything is enqueued on the engine's stream; whoever gives up
 * aborts the communicator from this thread, between two looks at the stream, when no call of NCCL is under way.
 */
export class NcclExchange implements DeviceExchange<CudaFloats> {
  readonly offer: string;
  readonly total: CudaFloats;
  readonly nodes: readonly CudaFloats[];
  readonly slices: DeviceSlices<CudaFloats> | undefined;
  readonly #runtime: CudaRuntime;
  readonly #sharing: CudaSharing;
  readonly #nccl: Nccl;
  readonly #plan: ExchangePlan;
  readonly #options: ExchangeOptions;
  readonly #order: SumOrder;
  readonly #memory: Address;
  /** With `wire` bf16: a bf16 for each float of the memory, in the same order. */
  readonly #wireMemory: Address;
  /** Peers' nodes, own part, in the order of members. */
  readonly #gathered: readonly { readonly rank: number; readonly floats: CudaFloats }[];
  #communicator: Address | undefined;
  #waitingSinceMs = 0;
  #receivedBytes = 0;
  #closed = false;

  /**
   * @param round brings the rounded copy of floats up to date
   * @throws SegueError EXCHANGE_UNAVAILABLE without NCCL
   */
  constructor(
    runtime: CudaRuntime,
    sharing: CudaSharing,
    round: (floats: CudaFloats) => void,
    length: number,
    plan: ExchangePlan,
    options: ExchangeOptions,
  ) {
    const { members, self, root } = plan;
    const own = members[self]!;
    this.#runtime = runtime;
    this.#sharing = sharing;
    this.#nccl = loadNccl(options.ncclLibrary);
    this.#plan = plan;
    this.#options = options;
    this.#order = sumOrder(
      root,
      members.flatMap(({ nodes }) => nodes),
    );
    const peerRanks = members.flatMap(({ nodes }, rank) => (rank === self ? [] : nodes.map(() => rank)));
    const padded = (floats: number): number => Math.ceil(floats / ALIGNED_FLOATS) * ALIGNED_FLOATS;
    const [whole, part] = [padded(length), padded(own.end - own.begin)];
    const squares = plan.sharded ? padded(squaresFloats(length)) : 0;
    const gathered = squares + (1 + own.nodes.length) * whole;
    const floats = gathered + peerRanks.length * part;
    const wireBytes = plan.wire === "bf16" ? BF16_BYTES : 0;
    this.#memory = runtime.allocate((FLOAT_BYTES + wireBytes) * floats);
    this.#wireMemory = this.#memory + FLOAT_BYTES * floats;
    const vector = (offset: number, floats: number): CudaFloats => ({
      f32: this.#memory + FLOAT_BYTES * offset,
      bf16: 0,
      length: floats,
    });
    this.total = vector(squares, length);
    this.nodes = own.nodes.map((_, index) => vector(squares + (1 + index) * whole, length));
    this.slices = plan.sharded ? this.#ownSlices(vector(0, squaresFloats(length)), round) : undefined;
    this.#gathered = peerRanks.map((rank, index) => ({
      rank,
      floats: vector(gathered + index * part, own.end - own.begin),
    }));
    this.offer = self === 0 ? Buffer.from(this.#nccl.uniqueId()).toString("hex") : "";
  }

  get ownNodes(): readonly ReductionNode[] {
    return this.#plan.members[this.#plan.self]!.nodes;
  }

  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  connect([id]: readonly string[]): void {
    this.#waitingSinceMs = performance.now();
    const { members, self } = this.#plan;
    this.#communicator = this.#nccl.init(Buffer.from(id!, "hex"), members.length, self);
    this.#sharing.watch({ check: () => this.#check(), letGo: () => this.#abort() });
    this.#settle();
  }

  begin(): void {
    this.#waitingSinceMs = performance.now();
  }

  reduce(): void {
    this.#waitingSinceMs = performance.now();
    const { members, self, wire } = this.#plan;
    const { begin, end } = members[self]!;
    const isRounded = wire === "bf16";
    const peers = members.map((member, rank) => ({ ...member, rank })).filter(({ rank }) => rank !== self);
    const part = (of: CudaFloats, first: number, last: number): Omit<Transfer, "rank"> => {
      const { f32, bf16, length } = this.#withWire(sliceOf(of, first, last - first));
      return isRounded ? { address: bf16, bytes: BF16_BYTES * length } : { address: f32, bytes: FLOAT_BYTES * length };
    };
    if (isRounded) for (const node of this.nodes) this.#sharing.round(this.#withWire(node));
    this.#transfer(
      peers.flatMap((peer) => this.nodes.map((node) => ({ rank: peer.rank, ...part(node, peer.begin, peer.end) }))),
      this.#gathered.map(({ rank, floats }) => ({ rank, ...part(floats, 0, floats.length) })),
    );
    if (isRounded) for (const { floats } of this.#gathered) this.#sharing.widen(this.#withWire(floats));
    const own = sliceOf(this.total, begin, end - begin);
    if (own.length > 0) this.#sharing.sum(this.#sources(), this.#order, own);
    if (own.length === this.total.length || this.slices) return;
    if (isRounded) this.#sharing.round(this.#withWire(own));
    this.#transfer(
      peers.map(({ rank }) => ({ rank, ...part(this.total, begin, end) })),
      peers.map((peer) => ({ rank: peer.rank, ...part(this.total, peer.begin, peer.end) })),
    );
    if (!isRounded) return;
    for (const peer of peers) this.#sharing.widen(this.#withWire(sliceOf(this.total, peer.begin, peer.end - peer.begin)));
  }

  #ownSlices(squares: CudaFloats, round: (floats: CudaFloats) => void): DeviceSlices<CudaFloats> {
    const { members, self } = this.#plan;
    const { begin, end } = members[self]!;
    const squaresOf = (member: ExchangeMember): CudaFloats => {
      const first = squaresFloats(member.begin);
      return sliceOf(squares, first, squaresFloats(member.end) - first);
    };
    const weightsOf = (parameters: CudaFloats, member: ExchangeMember): CudaFloats =>
      sliceOf(parameters, member.begin, member.end - member.begin);
    return {
      begin,
      end,
      squares,
      ownSquares: squaresOf(members[self]!),
      gatherSquares: () => this.#gather(squaresOf),
      gatherWeights: (parameters) => {
        this.#gather((member) => weightsOf(parameters, member));
        const peers = members.filter((member, rank) => rank !== self && member.end > member.begin);
        if (parameters.bf16) for (const peer of peers) round(weightsOf(parameters, peer));
      },
    };
  }

  /** Every member's part comes to all. */
  #gather(partOf: (member: ExchangeMember) => CudaFloats): void {
    this.#waitingSinceMs = performance.now();
    const { members, self } = this.#plan;
    const parts = members.map((member, rank): Transfer => {
      const { f32, length } = partOf(member);
      return { rank, address: f32, bytes: FLOAT_BYTES * length };
    });
    const peers = parts.filter(({ rank }) => rank !== self);
    this.#transfer(
      peers.map(({ rank }) => ({ ...parts[self]!, rank })),
      peers,
    );
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#abort();
    this.#sharing.watch(undefined);
    this.#runtime.release(this.#memory);
  }

  /** The floats with what travels of them beside. Not for the engine, which would keep a copy beside floats up to date. */
  #withWire({ f32, length }: CudaFloats): CudaFloats {
    return { f32, bf16: this.#wireMemory + (f32 - this.#memory) / (FLOAT_BYTES / BF16_BYTES), length };
  }

  /** Own part of every node, in the order of members. */
  #sources(): CudaFloats[] {
    const { members, self } = this.#plan;
    const { begin, end } = members[self]!;
    const gathered = this.#gathered.map(({ floats }) => floats);
    return members.flatMap(({ nodes }, rank) =>
      rank === self ? this.nodes.map((node) => sliceOf(node, begin, end - begin)) : gathered.splice(0, nodes.length),
    );
  }

  /** Enqueues all at once. Between two ranks transfers pair up in the order they are listed. */
  #transfer(sends: readonly Transfer[], receives: readonly Transfer[]): void {
    const communicator = this.#open();
    const { stream } = this.#runtime;
    this.#demand(this.#nccl.groupStart(), "ncclGroupStart");
    for (const { address, bytes, rank } of sends.filter(({ bytes }) => bytes > 0)) {
      this.#demand(this.#nccl.send(address, bytes, rank, communicator, stream), "ncclSend");
    }
    for (const { address, bytes, rank } of receives.filter(({ bytes }) => bytes > 0)) {
      this.#demand(this.#nccl.receive(address, bytes, rank, communicator, stream), "ncclRecv");
      this.#receivedBytes += bytes;
    }
    this.#demand(this.#nccl.groupEnd(), "ncclGroupEnd");
    // The transfers are on the stream only when the group has been taken.
    this.#settle();
  }

  /** Ends when the communicator has taken what was asked of it. */
  #settle(): void {
    try {
      pollUntil(
        () => this.#isSettled(),
        () => this.#check(),
      );
    } catch (failure) {
      this.#abort();
      throw failure;
    }
  }

  #isSettled(): boolean {
    const state = this.#nccl.progress(this.#open());
    if (state === NCCL_IN_PROGRESS) return false;
    this.#demand(state, "NCCL");
    return true;
  }

  /** @throws what the caller's check throws; SegueError EXCHANGE_TIMED_OUT, NCCL_FAILED */
  #check(): void {
    this.#options.check();
    const { patienceMs } = this.#options;
    if (this.#communicator !== undefined) {
      const state = this.#nccl.progress(this.#communicator);
      if (state !== NCCL_IN_PROGRESS) this.#demand(state, "NCCL");
    }
    if (performance.now() - this.#waitingSinceMs >= patienceMs) {
      throw exchangeTimedOut(`NCCL did not bring the members' gradients together within ${patienceMs} ms`);
    }
  }

  #open(): Address {
    if (this.#communicator === undefined) throw ncclFailed("the communicator was given up");
    return this.#communicator;
  }

  /** What the stream waits for ends; ranks that wait for this one fail. */
  #abort(): void {
    if (this.#communicator === undefined) return;
    const communicator = this.#communicator;
    this.#communicator = undefined;
    this.#nccl.abort(communicator);
  }

  #demand(result: number, what: string): void {
    if (result === NCCL_SUCCESS || result === NCCL_IN_PROGRESS) return;
    throw ncclFailed(`${what}: ${this.#nccl.describe(result)}`);
  }
}
