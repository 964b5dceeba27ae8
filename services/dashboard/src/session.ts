import { createHash, createHmac, timingSafeEqual } from "node:crypto";

export const SESSION_COOKIE = "segue_session";
export const SESSION_SECONDS = 7 * 24 * 3600;

/**
 * Sessions without a store: the cookie is `<expiry ms>.<HMAC of it under the token>`, so it outlives a restart, and a new token ends
 * every session.
 */
export function issueSession(token: string, nowMs: number): string {
  const expiresAtMs = nowMs + SESSION_SECONDS * 1000;
  return `${expiresAtMs}.${sign(token, expiresAtMs)}`;
}

export function isSessionValid(session: string, token: string, nowMs: number): boolean {
  const [expiry = "", signature = ""] = session.split(".");
  const expiresAtMs = Number(expiry);
  return Number.isSafeInteger(expiresAtMs) && expiresAtMs > nowMs && sameText(signature, sign(token, expiresAtMs));
}

/** Compares in a time that says nothing about the texts. */
export function sameText(a: string, b: string): boolean {
  const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}

/** The value of one cookie of a Cookie header. */
export function cookieValue(header: string | undefined, name: string): string | undefined {
  for (const pair of header?.split(";") ?? []) {
    const [key, ...value] = pair.trim().split("=");
    if (key === name) return value.join("=");
  }
  return undefined;
}

function sign(token: string, expiresAtMs: number): string {
  return createHmac("sha256", token).update(`segue dashboard session ${expiresAtMs}`).digest("base64url");
}
