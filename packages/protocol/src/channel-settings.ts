import type { ChannelOptions } from "@grpc/grpc-js";

/** Settings of one client's channel. */
export interface ChannelSettings {
  /** HTTP/2 receive window: how much a peer may send ahead of our reading. Bounds download speed to this much per round trip. */
  readonly receiveWindowBytes?: number;
  /** Largest message sent or received. */
  readonly maxMessageBytes?: number;
  /** Interval of HTTP/2 pings, also while no call is open. */
  readonly keepaliveMs?: number;
  /** How long an answer to a ping may take before the connection counts as lost. */
  readonly keepaliveTimeoutMs?: number;
  /** Deadline of unary calls that name none themselves. */
  readonly unaryDeadlineMs?: number;
  /** Sent with every call as `authorization: Bearer ...`. */
  readonly bearerToken?: string | undefined;
  /** Name expected in the server's certificate, where it is not the host of the address. */
  readonly serverName?: string | undefined;
}

export const DEFAULT_CHANNEL_SETTINGS = {
  receiveWindowBytes: 8 * 2 ** 20,
  maxMessageBytes: 16 * 2 ** 20,
  keepaliveMs: 30_000,
  keepaliveTimeoutMs: 10_000,
  unaryDeadlineMs: 10_000,
  bearerToken: undefined,
  serverName: undefined,
} satisfies ChannelSettings;

/**
 * Fills in the defaults.
 * @throws TypeError for a key that is no setting: grpc-js would silently ignore a misspelt one
 */
export function channelSettings(settings: ChannelSettings = {}): Required<ChannelSettings> {
  for (const key of Object.keys(settings)) {
    if (!(key in DEFAULT_CHANNEL_SETTINGS)) throw new TypeError(`unknown channel setting "${key}"`);
  }
  return { ...DEFAULT_CHANNEL_SETTINGS, ...settings };
}

/** The grpc-js options of a client's channel. */
export function channelOptions(settings: Required<ChannelSettings>): ChannelOptions {
  return {
    "grpc-node.flow_control_window": settings.receiveWindowBytes,
    "grpc.max_receive_message_length": settings.maxMessageBytes,
    "grpc.max_send_message_length": settings.maxMessageBytes,
    "grpc.keepalive_time_ms": settings.keepaliveMs,
    "grpc.keepalive_timeout_ms": settings.keepaliveTimeoutMs,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.max_reconnect_backoff_ms": 5_000,
    // One connection per client: a big pull must not sit in front of another client's calls, and close() really closes.
    "grpc.use_local_subchannel_pool": 1,
    // Members of a cluster reach each other directly, whatever proxy the environment names for web access.
    "grpc.enable_http_proxy": 0,
    "grpc.service_config_disable_resolution": 1,
    ...(settings.serverName === undefined
      ? {}
      : { "grpc.ssl_target_name_override": settings.serverName, "grpc.default_authority": settings.serverName }),
  };
}
