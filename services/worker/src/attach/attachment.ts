import { setTimeout as sleep } from "node:timers/promises";
import { status } from "@grpc/grpc-js";
import { isServiceError, Workers, type AttachResponse, type Welcome } from "@segue/protocol";
import { connectClient, fromServiceError, type Logger, type Security } from "@segue/runtime";
import type { AttachMessage } from "./attach-message.js";
import { backoffMs } from "./backoff.js";
import { Outbox } from "./outbox.js";

export interface AttachmentOptions {
  readonly coordinator: string;
  readonly security: Security;
  readonly logger: Logger;
  readonly hello: () => AttachMessage;
  readonly heartbeat: () => AttachMessage;
  readonly onWelcome: (welcome: Welcome) => void;
  /** Everything but Welcome and Pulse. */
  readonly onMessage: (message: AttachResponse["message"]) => void;
  /** The stream is gone; what the coordinator asked for on it is void. */
  readonly onLost: () => void;
}

interface Request {
  readonly message: AttachMessage;
}

/** A coordinator that says nothing for this many heartbeats is gone, even if the connection seems to stand. */
const SILENT_HEARTBEATS = 10;
const LEAST_SILENCE_MS = 10_000;
/** Another try cannot help: wrong token, or the name was taken over by a newer worker. */
const FATAL: ReadonlySet<status> = new Set([status.UNAUTHENTICATED, status.PERMISSION_DENIED, status.ALREADY_EXISTS]);

/** The worker's stream to the coordinator: says Hello, sends heartbeats, and attaches again, with growing pauses, whenever it is lost. */
export class Attachment {
  readonly #options: AttachmentOptions;
  readonly #over = new AbortController();
  #outbox: Outbox<Request> | undefined;
  #welcomed = false;
  /** Ends when the attachment is closed; rejects with SegueError when the coordinator refuses this worker for good. */
  readonly done: Promise<void>;

  constructor(options: AttachmentOptions) {
    this.#options = options;
    this.done = this.#run();
    this.done.catch(() => undefined);
  }

  /** Whether the coordinator has welcomed this worker on the present stream. */
  get attached(): boolean {
    return this.#welcomed;
  }

  /** Sends a message on the present stream; without one it is dropped: it would mean nothing on the next. */
  send(message: AttachMessage): void {
    if (this.#welcomed) this.#outbox?.push({ message });
  }

  /** Ends the stream and stops attaching. Idempotent. */
  async close(): Promise<void> {
    this.#over.abort();
    this.#outbox?.end();
    await this.done.catch(() => undefined);
  }

  async #run(): Promise<void> {
    const { logger, coordinator } = this.#options;
    const { signal } = this.#over;
    for (let failures = 0; !signal.aborted;) {
      const outcome = await this.#attachOnce();
      if (signal.aborted) return;
      if (isServiceError(outcome.error) && FATAL.has(outcome.error.code)) throw fromServiceError(outcome.error);
      failures = outcome.welcomed ? 1 : failures + 1;
      const pauseMs = backoffMs(failures, Math.random());
      const reason = outcome.error instanceof Error ? outcome.error.message : "the coordinator ended the stream";
      logger.warn({ coordinator, failures, pauseMs: Math.round(pauseMs), reason }, "coordinator_away");
      await sleep(pauseMs, undefined, { signal }).catch(() => undefined);
    }
  }

  /** One stream from Hello to its end. */
  async #attachOnce(): Promise<{ welcomed: boolean; error?: unknown }> {
    const { coordinator, security, hello, heartbeat, onWelcome, onMessage, onLost } = this.#options;
    const outbox = new Outbox<Request>();
    this.#outbox = outbox;
    outbox.push({ message: hello() });
    const silence = new AbortController();
    let heartbeatTimer: NodeJS.Timeout | undefined;
    let silenceTimer: NodeJS.Timeout | undefined;
    let welcomed = false;
    let client: ReturnType<typeof connectClient<typeof Workers>> | undefined;
    try {
      client = connectClient(Workers, coordinator, security);
      for await (const { message } of client.attach(outbox, { signal: silence.signal })) {
        silenceTimer?.refresh();
        if (message.case === "welcome") {
          const { heartbeatMs } = message.value;
          welcomed = this.#welcomed = true;
          onWelcome(message.value);
          heartbeatTimer ??= setInterval(() => outbox.push({ message: heartbeat() }), heartbeatMs);
          silenceTimer ??= setTimeout(() => silence.abort(), Math.max(LEAST_SILENCE_MS, SILENT_HEARTBEATS * heartbeatMs));
        } else if (message.case !== "pulse" && message.case !== undefined) {
          onMessage(message);
        }
      }
      return { welcomed };
    } catch (error) {
      return { welcomed, error };
    } finally {
      clearInterval(heartbeatTimer);
      clearTimeout(silenceTimer);
      outbox.end();
      client?.close();
      this.#welcomed = false;
      if (welcomed) onLost();
    }
  }
}
