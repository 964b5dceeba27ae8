import { setTimeout as sleep } from "node:timers/promises";
import { SegueError } from "@segue/core";
import { hostOf, isLoopback } from "@segue/runtime";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { cookieValue, isSessionValid, issueSession, sameText, SESSION_COOKIE, SESSION_SECONDS } from "./session.js";

/** Reachable without a session: the form itself and what it needs, and the health check. */
const PUBLIC_PATHS = new Set(["/login", "/login.html", "/app.css", "/icon.svg", "/js/theme.js", "/js/login.js", "/healthz"]);
/** Slows down guessing; a token is long enough not to be guessed anyway. */
const WRONG_TOKEN_DELAY_MS = 500;

const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "form-action 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
].join("; ");

/**
 * Lets a listener pass that only this machine reaches, or that asks for a token. (Browsers reach a dashboard through proxies and port
 * forwards that bring their own TLS, so it is not demanded here.)
 * @throws SegueError INSECURE_LISTENER
 */
export function requireGuardedListener(listen: string, token: string | undefined): void {
  if (token !== undefined || isLoopback(hostOf(listen))) return;
  throw new SegueError(
    "INSECURE_LISTENER",
    `${listen} can be reached from other machines. Set SEGUE_TOKEN_FILE, or listen on 127.0.0.1.`,
    {
      status: "FAILED_PRECONDITION",
    },
  );
}

/** Adds security headers to every answer, and the login when there is a token. */
export function guardAccess(app: FastifyInstance, options: { token: string | undefined; tls: boolean }): void {
  const { token, tls } = options;
  app.addHook("onRequest", async (request, reply) => {
    reply.headers({
      "content-security-policy": CONTENT_SECURITY_POLICY,
      "x-content-type-options": "nosniff",
      "referrer-policy": "no-referrer",
      "cross-origin-opener-policy": "same-origin",
      "cross-origin-resource-policy": "same-origin",
    });
    const refusal = token === undefined ? foreignHost(request) : refuseWithoutSession(request, reply, token);
    return refusal === undefined ? undefined : reply.send(refusal);

    function foreignHost({ hostname }: FastifyRequest): object | undefined {
      // A page of another site that points its own name at 127.0.0.1 (DNS rebinding) sends that name as Host.
      if (isLoopback(hostname)) return undefined;
      reply.code(403);
      return { code: "FOREIGN_HOST", message: "Without a token the dashboard answers only to localhost." };
    }
  });
  if (token !== undefined) addLogin(app, token, tls);
}

function refuseWithoutSession(request: FastifyRequest, reply: FastifyReply, token: string): object | string | undefined {
  const path = request.url.split("?")[0] ?? "";
  if (PUBLIC_PATHS.has(path) || isAuthorized(request, token)) return undefined;
  if (path.startsWith("/api/")) {
    reply.code(401);
    return { code: "UNAUTHENTICATED", message: "Log in, or send the token as `Authorization: Bearer <token>`." };
  }
  reply.code(303).header("location", "/login");
  return "";
}

function isAuthorized(request: FastifyRequest, token: string): boolean {
  const { authorization, cookie } = request.headers;
  if (authorization !== undefined) return sameText(authorization, `Bearer ${token}`);
  const session = cookieValue(cookie, SESSION_COOKIE);
  return session !== undefined && isSessionValid(session, token, Date.now());
}

function addLogin(app: FastifyInstance, token: string, tls: boolean): void {
  const cookie = (value: string, seconds: number): string =>
    `${SESSION_COOKIE}=${value}; HttpOnly; SameSite=Strict; Path=/; Max-Age=${seconds}${tls ? "; Secure" : ""}`;
  app.addContentTypeParser("application/x-www-form-urlencoded", { parseAs: "string" }, (_request, body, done) => {
    done(null, Object.fromEntries(new URLSearchParams(body.toString())));
  });
  app.get("/login", (_request, reply) => reply.sendFile("login.html"));
  app.post<{ Body: { token?: string } | undefined }>("/login", async (request, reply) => {
    if (!sameText((request.body?.token ?? "").trim(), token)) {
      await sleep(WRONG_TOKEN_DELAY_MS);
      return reply.redirect("/login?wrong", 303);
    }
    return reply.header("set-cookie", cookie(issueSession(token, Date.now()), SESSION_SECONDS)).redirect("/", 303);
  });
  app.post("/logout", (_request, reply) => reply.header("set-cookie", cookie("", 0)).redirect("/login", 303));
}
