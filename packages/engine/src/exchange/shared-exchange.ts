import { splitPoint, type ReductionNode } from "@segue/core";
import type { Device } from "../devices/device.js";
import { sumOrder, type DeviceSharing, type SharedFloats, type Signals, type SumOrder } from "./device-sharing.js";
import { exchangeTimedOut, type ExchangeMember, type ExchangeOptions, type ExchangePlan } from "./gradient-exchange.js";
import type { DeviceExchange } from "./device-exchange.js";

/** Vectors begin on a cache line. */
const LINE_FLOATS = 16;

interface Offer {
  readonly memory: string;
  readonly signals: string;
}

interface Peer<F> {
  readonly member: ExchangeMember;
  readonly place: number;
  readonly memory: SharedFloats<F>;
  readonly signals: Signals;
}

/**
 * Exchange between members on one host, who read each other's memory. Each member adds its slice of all nodes in the order of the reduction
 * tree, then the others copy that sum; or, where every slice is the whole, each adds everything by itself.
 *
 * Member k's n-th step writes n to the signals of every peer: at place k when its nodes are there, at place W + k when it has added (W
 * members). Nobody overwrites what a peer may still read: nodes of the next step come after the peers have added, and the sum of the next
 * step after their next nodes, which follow their copy of it. Peers only ever read each other's memory, so whoever is behind harms nobody.
 *
 * With `wire` bf16 a member rounds its nodes, and in slices its sum, where they lie. The bits are those of any other transport; the bytes that
 * are read stay as many.
 */
export class SharedExchange<F> implements DeviceExchange<F> {
  readonly offer: string;
  readonly total: F;
  readonly nodes: readonly F[];
  readonly #device: Device<F, unknown>;
  readonly #sharing: DeviceSharing<F>;
  readonly #plan: ExchangePlan;
  readonly #options: ExchangeOptions;
  readonly #length: number;
  readonly #memory: SharedFloats<F>;
  readonly #signals: Signals;
  readonly #order: SumOrder;
  readonly #isWhole: boolean;
  #peers: readonly Peer<F>[] = [];
  /** Own part of every node, in the order of `#order`. */
  #sources: readonly F[] = [];
  #step = 0;
  #waitingSinceMs = 0;
  #receivedBytes = 0;
  #closed = false;

  /** @param length floats of each node */
  constructor(device: Device<F, unknown>, sharing: DeviceSharing<F>, length: number, plan: ExchangePlan, options: ExchangeOptions) {
    const own = plan.members[plan.self]!;
    this.#device = device;
    this.#sharing = sharing;
    this.#plan = plan;
    this.#options = options;
    this.#length = length;
    this.#order = sumOrder(
      plan.root,
      plan.members.flatMap(({ nodes }) => nodes),
      splitPoint,
    );
    this.#isWhole = own.end - own.begin === length;
    this.#memory = sharing.share((own.nodes.length + 1) * padded(length));
    this.#signals = sharing.signals(2 * plan.members.length);
    this.total = this.#vector(this.#memory, 0);
    this.nodes = own.nodes.map((_, index) => this.#vector(this.#memory, 1 + index));
    const offer: Offer = { memory: this.#memory.handle, signals: this.#signals.handle };
    this.offer = JSON.stringify(offer);
  }

  get ownNodes(): readonly ReductionNode[] {
    return this.#plan.members[this.#plan.self]!.nodes;
  }

  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  connect(offers: readonly string[]): void {
    this.#waitingSinceMs = performance.now();
    const { members, self } = this.#plan;
    const { begin, end } = members[self]!;
    const peers: Peer<F>[] = [];
    this.#peers = peers;
    for (const [place, member] of members.entries()) {
      if (place === self) continue;
      const offer = JSON.parse(offers[place]!) as Offer;
      const memory = this.#sharing.open(offer.memory);
      const signals = this.#sharing.openSignals(offer.signals);
      peers.push({ member, place, memory, signals });
    }
    this.#sources = members.flatMap(({ nodes }, place) => {
      const memory = place === self ? this.#memory : peers.find((peer) => peer.place === place)!.memory;
      return nodes.map((_, index) => this.#device.slice(this.#vector(memory, 1 + index), begin, end - begin));
    });
    this.#sharing.watch({ check: () => this.#check(), letGo: () => this.#letGo() });
  }

  begin(): void {
    this.#step++;
    this.#waitingSinceMs = performance.now();
    if (this.#isWhole) this.#await("added", this.#step - 1);
  }

  reduce(): void {
    const { members, self, wire } = this.#plan;
    const { begin, end } = members[self]!;
    const own = this.#device.slice(this.total, begin, end - begin);
    if (wire === "bf16") for (const node of this.nodes) this.#sharing.round(node);
    this.#signal("computed");
    this.#await("computed", this.#step);
    this.#sharing.sum(this.#sources, this.#order, own);
    if (wire === "bf16" && !this.#isWhole) this.#sharing.round(own);
    this.#signal("added");
    const peerNodes = this.#peers.reduce((sum, { member }) => sum + member.nodes.length, 0);
    this.#receivedBytes += 4 * peerNodes * (end - begin);
    if (this.#isWhole) return;
    this.#await("added", this.#step);
    for (const { member, memory } of this.#peers) {
      const part = (of: F): F => this.#device.slice(of, member.begin, member.end - member.begin);
      this.#device.copy(part(this.#vector(memory, 0)), part(this.total));
      this.#receivedBytes += 4 * (member.end - member.begin);
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#letGo();
    this.#sharing.watch(undefined);
    for (const { memory, signals } of this.#peers) {
      memory.close();
      signals.close();
    }
    this.#peers = [];
    this.#signals.close();
    this.#memory.close();
  }

  #vector({ floats }: SharedFloats<F>, index: number): F {
    return this.#device.slice(floats, index * padded(this.#length), this.#length);
  }

  #place(what: "computed" | "added", member: number): number {
    return (what === "computed" ? 0 : this.#plan.members.length) + member;
  }

  #signal(what: "computed" | "added"): void {
    for (const { signals } of this.#peers) signals.write(this.#place(what, this.#plan.self), this.#step);
  }

  #await(what: "computed" | "added", step: number): void {
    this.#waitingSinceMs = performance.now();
    for (const { place } of this.#peers) this.#signals.wait(this.#place(what, place), step);
  }

  /** @throws what the caller's check throws; SegueError EXCHANGE_TIMED_OUT */
  #check(): void {
    this.#options.check();
    const { patienceMs } = this.#options;
    if (performance.now() - this.#waitingSinceMs < patienceMs) return;
    // Own steps may be asked for ahead of what is computed: whoever has computed the fewest is waited for.
    const computed = this.#peers.map(({ place }) => this.#signals.read(this.#place("computed", place)));
    const fewest = Math.min(...computed);
    const behind = this.#peers.filter((_, index) => computed[index] === fewest);
    const who = fewest < this.#step ? behind.map(({ place }) => `member ${place}`).join(", ") : "the device";
    throw exchangeTimedOut(`${who} did not finish step ${fewest + 1} of this generation within ${patienceMs} ms`);
  }

  /** Whatever the device still waits for counts as there. Its results are of no use from here on. */
  #letGo(): void {
    for (const { place } of this.#peers) {
      for (const what of ["computed", "added"] as const) this.#signals.set(this.#place(what, place), LET_GO);
    }
  }
}

/** Beyond every step, and not so far that a device which compares differences takes it for one before. */
const LET_GO = 0x3fff_ffff;

function padded(length: number): number {
  return Math.ceil(length / LINE_FLOATS) * LINE_FLOATS;
}
