/** What a worker process was told, as far as it differs between the members that it starts. */
export interface SharedSettings {
  readonly name: string;
  readonly listen: string;
  readonly advertise?: string | undefined;
  readonly metricsListen?: string | undefined;
  /** 0: as many as there are cores. */
  readonly threads: number;
}

/** One worker process for one GPU. */
export interface MemberPlan {
  readonly name: string;
  /** What is added to the environment. */
  readonly env: Readonly<Record<string, string>>;
}

/** SEGUE_NAME may have a hundred characters. */
const LONGEST_STEM = 90;

/** A member for each GPU: ports count up from those that were set, and the cores are shared out. Pure. */
export function memberPlans(shared: SharedSettings, gpus: number, cores: number): MemberPlan[] {
  const { threads, listen, advertise, metricsListen } = shared;
  return Array.from({ length: gpus }, (_, gpu) => {
    const name = `${shared.name.slice(0, LONGEST_STEM)}-gpu${gpu}`;
    const env = {
      SEGUE_NAME: name,
      SEGUE_GPU: String(gpu),
      // A member whose GPU is lost must not go on as one on the CPU.
      SEGUE_ENGINE: "cuda",
      SEGUE_THREADS: String(threads || Math.max(1, Math.floor(cores / gpus))),
      SEGUE_LISTEN: portAfter(listen, gpu),
      ...(advertise === undefined ? {} : { SEGUE_ADVERTISE: portAfter(advertise, gpu) }),
      ...(metricsListen === undefined ? {} : { SEGUE_METRICS_LISTEN: portAfter(metricsListen, gpu) }),
    };
    return { name, env };
  });
}

/** Port 0 takes a free one each time. */
function portAfter(address: string, offset: number): string {
  const colon = address.lastIndexOf(":");
  const port = Number(address.slice(colon + 1));
  return `${address.slice(0, colon)}:${port === 0 ? 0 : port + offset}`;
}
