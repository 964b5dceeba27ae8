import type { JobSpec } from "@segue/core";

/** A way in which members bring their gradients together. */
export type Transport = Exclude<JobSpec["sync"]["transport"], "auto">;

export interface TransportChoice {
  readonly transport: Transport;
  /** Why this one, in a sentence for people. */
  readonly reason: string;
}

/** What of a worker decides how it can be reached by others. */
export interface Reach {
  /** The engine that it uses for the job. */
  readonly engine: string | undefined;
  /** Equal on workers that can map each other's memory; empty: unknown. */
  readonly hostId: string;
  /** Empty: it has no GPU. */
  readonly gpuUuid: string;
  /** Empty: NCCL does not load there. */
  readonly ncclVersion: string;
}

/** Codes of failures after which another transport may do. */
export const TRANSPORT_FAILURES: readonly string[] = ["EXCHANGE_UNAVAILABLE", "NCCL_FAILED"];

/**
 * The transport of a generation: what the spec says, else the best that all members share. All give the same bits.
 * @param failed those that members could not use in this job
 */
export function chooseTransport(
  { sync }: Pick<JobSpec, "sync">,
  members: readonly Reach[],
  failed: ReadonlySet<Transport>,
): TransportChoice {
  if (sync.transport !== "auto") return { transport: sync.transport, reason: "the job asks for it" };
  const grpc = (why: string): TransportChoice => ({ transport: "grpc", reason: why });
  const all = (test: (member: Reach) => boolean): boolean => members.every(test);
  const [first] = members;
  const onOneHost = first !== undefined && first.hostId !== "" && all(({ hostId }) => hostId === first.hostId);
  const onGpus = all(({ engine }) => engine === "cuda");
  const canShare = onGpus || all(({ engine }) => engine === "cpu");
  if (canShare && onOneHost && !failed.has("ipc")) return { transport: "ipc", reason: "the members share a host" };
  const haveOwnGpus = new Set(members.map(({ gpuUuid, hostId }) => `${hostId} ${gpuUuid}`)).size === members.length;
  const haveNccl = all(({ ncclVersion }) => ncclVersion !== "");
  if (onGpus && haveNccl && haveOwnGpus && !failed.has("nccl"))
    return { transport: "nccl", reason: "every member has a GPU and NCCL" };
  if (failed.size > 0) return grpc(`${[...failed].join(" and ")} failed`);
  if (!canShare) return grpc("not all members compute on GPUs, or all on processors");
  if (!onGpus) return grpc("the members are on several hosts");
  return grpc(haveNccl ? "members share a GPU, but no host" : "a member has no NCCL");
}
