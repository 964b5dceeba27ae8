import type { MemberPlan } from "./membership.js";

/** A pull that failed, and whose fault it was. */
export class PeerFailure extends Error {
  override readonly name = "PeerFailure";
  readonly workerId: string;

  constructor(workerId: string, cause: unknown) {
    super(cause instanceof Error ? cause.message : String(cause), { cause });
    this.workerId = workerId;
  }
}

/** Blames `member` if the pull fails. */
export async function blaming(member: Pick<MemberPlan, "workerId">, pull: Promise<void>): Promise<void> {
  try {
    await pull;
  } catch (error) {
    throw new PeerFailure(member.workerId, error);
  }
}
