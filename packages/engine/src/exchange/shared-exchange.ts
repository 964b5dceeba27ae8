import type { ReductionNode } from "@segue/core";
import type { Device } from "../devices/device.js";
import { sumOrder, type DeviceSharing, type SharedFloats, type Signals, type SumOrder } from "./device-sharing.js";
import { exchangeTimedOut, type ExchangeMember, type ExchangeOptions, type ExchangePlan } from "./gradient-exchange.js";
import { squaresFloats, type DeviceExchange, type DeviceSlices } from "./device-exchange.js";

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
 * Where members step a slice each, they copy the squares of each other's sums, and then weights, which lie where the sum was.
 *
 * Member k's n-th step writes n to the signals of every peer: at place k when its nodes are there, at place W + k when it has added (W
 * members), at place 2 W + k when it has stepped its slice. Nobody overwrites what a peer may still read: nodes of the next step come after
 * the peers have added, and the sum of the next step after their next nodes, which follow their copy of it. Peers only ever read each
 * other's memory, so whoever is behind harms nobody.
 *
 * With `wire` bf16 a member rounds its nodes, and in slices its sum, where they lie. The bits are those of any other transport; the bytes that
 * are read stay as many.
 */
export class SharedExchange<F> implements DeviceExchange<F> {
  readonly offer: string;
  readonly total: F;
  readonly nodes: readonly F[];
  readonly slices: DeviceSlices<F> | undefined;
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
    );
    this.#isWhole = own.end - own.begin === length && plan.sharded !== true;
    this.#memory = sharing.share((own.nodes.length + 1) * padded(length) + (plan.sharded ? squaresFloats(length) : 0));
    this.#signals = sharing.signals(SIGNALS.length * plan.members.length);
    this.total = this.#vector(this.#memory, 0);
    this.nodes = own.nodes.map((_, index) => this.#vector(this.#memory, 1 + index));
    this.slices = plan.sharded ? this.#ownSlices() : undefined;
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
    if (end > begin) this.#sharing.sum(this.#sources, this.#order, own);
    if (wire === "bf16" && !this.#isWhole) this.#sharing.round(own);
    const peerNodes = this.#peers.reduce((sum, { member }) => sum + member.nodes.length, 0);
    this.#receivedBytes += 4 * peerNodes * (end - begin);
    // Squares come between.
    if (this.slices) return;
    this.#signal("added");
    if (this.#isWhole) return;
    this.#await("added", this.#step);
    this.#copyTotals(this.total);
  }

  #ownSlices(): DeviceSlices<F> {
    const { members, self } = this.#plan;
    const { begin, end } = members[self]!;
    const squares = this.#squares(this.#memory, members[self]!);
    return {
      begin,
      end,
      squares,
      ownSquares: this.#partOfSquares(squares, members[self]!),
      gatherSquares: () => {
        this.#signal("added");
        this.#await("added", this.#step);
        for (const { member, memory } of this.#peers) {
          if (member.end === member.begin) continue;
          const to = this.#partOfSquares(squares, member);
          this.#device.copy(this.#partOfSquares(this.#squares(memory, member), member), to);
        }
      },
      gatherWeights: (parameters) => {
        const part = (of: F): F => this.#device.slice(of, begin, end - begin);
        if (end > begin) this.#device.copy(part(parameters), part(this.total));
        this.#signal("stepped");
        this.#await("stepped", this.#step);
        this.#copyTotals(parameters);
      },
    };
  }

  /** What lies in the peers' slices of their totals. */
  #copyTotals(into: F): void {
    for (const { member, memory } of this.#peers) {
      const length = member.end - member.begin;
      if (length === 0) continue;
      const part = (of: F): F => this.#device.slice(of, member.begin, length);
      this.#device.copy(part(this.#vector(memory, 0)), part(into));
      this.#receivedBytes += 4 * length;
    }
  }

  /** Behind the vectors of the member whose memory it is. */
  #squares({ floats }: SharedFloats<F>, { nodes }: ExchangeMember): F {
    return this.#device.slice(floats, (1 + nodes.length) * padded(this.#length), squaresFloats(this.#length));
  }

  #partOfSquares(squares: F, { begin, end }: ExchangeMember): F {
    const first = squaresFloats(begin);
    return this.#device.slice(squares, first, squaresFloats(end) - first);
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

  #place(what: Signal, member: number): number {
    return SIGNALS.indexOf(what) * this.#plan.members.length + member;
  }

  #signal(what: Signal): void {
    for (const { signals } of this.#peers) signals.write(this.#place(what, this.#plan.self), this.#step);
  }

  #await(what: Signal, step: number): void {
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
      for (const what of SIGNALS) this.#signals.set(this.#place(what, place), LET_GO);
    }
  }
}

/** Beyond every step, and not so far that a device which compares differences takes it for one before. */
const LET_GO = 0x3fff_ffff;

/** What members tell each other, in the order of a step. */
const SIGNALS = ["computed", "added", "stepped"] as const;
type Signal = (typeof SIGNALS)[number];

function padded(length: number): number {
  return Math.ceil(length / LINE_FLOATS) * LINE_FLOATS;
}
