/**
 * Verify a Tessera access token with jose, as strictly as jose can be told to.
 *
 *     TESSERA_ISSUER=http://127.0.0.1:3002 node dist/verify.js TOKEN
 *
 * Prints the claims as JSON and exits 0; or prints the reason on stderr and exits 1 for a bad token, 2 if the keys
 * could not be had (answer 503 then, never 401) or the call is wrong.
 *
 * Environment: TESSERA_ISSUER (default http://127.0.0.1:3002), TESSERA_JWKS_URL (default
 * {issuer}/.well-known/jwks.json), TESSERA_AUDIENCE (default the issuer).
 */
import { pathToFileURL } from "node:url";
import {
  createRemoteJWKSet, decodeProtectedHeader, errors, jwtVerify, type JWTPayload, type JWTVerifyGetKey,
} from "jose";

const MAX_TOKEN_BYTES = 8 * 1024;
const MAX_LIFETIME_S = 3600;
const FORBIDDEN_MEMBERS = ["crit", "b64", "zip", "jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256"];
const REQUIRED_CLAIMS = [
  "iss", "sub", "aud", "client_id", "sid", "jti", "iat", "exp", "auth_time", "amr", "tenant",
];

/** What jose says when it could not get a key set. Everything else of its errors is about the token. */
const NO_KEYS = new Set(["ERR_JWKS_TIMEOUT", "ERR_JWKS_INVALID", "ERR_JOSE_GENERIC"]);

class Refused extends Error {}

/** What jose leaves to us: the size, `at+jwt` spelt exactly so, members that bring their own key. */
function checkHeader(token: string): void {
  if (token.length > MAX_TOKEN_BYTES) throw new Refused("the token is too large");
  let header: Record<string, unknown>;
  try {
    header = decodeProtectedHeader(token);
  } catch {
    throw new Refused("the token header is malformed");
  }
  if (header["typ"] !== "at+jwt") throw new Refused("the token is not an access token");
  if (header["alg"] !== "EdDSA") throw new Refused("the token algorithm is not accepted");
  if (typeof header["kid"] !== "string" || header["kid"] === "") throw new Refused("the token has no key id");
  if (FORBIDDEN_MEMBERS.some((name) => name in header)) throw new Refused("the token header has a forbidden member");
}

/** jose takes any number as a date: a fraction would pass. */
function checkClaims(claims: JWTPayload): void {
  for (const name of ["iat", "exp", "auth_time"]) {
    const value = claims[name];
    if (!Number.isSafeInteger(value) || (value as number) < 0) throw new Refused(`the token claim ${name} is malformed`);
  }
  const lifetime = claims.exp! - claims.iat!;
  if (lifetime <= 0 || lifetime > MAX_LIFETIME_S) throw new Refused("the token lifetime is out of range");
}

/** The claims of `token`. A service makes `keys` once and keeps it: it caches the set, with a cool-down. */
export async function verify(token: string, issuer: string, audience: string, keys: JWTVerifyGetKey): Promise<JWTPayload> {
  checkHeader(token);
  const { payload } = await jwtVerify(token, keys, {
    algorithms: ["EdDSA"],
    typ: "at+jwt",
    issuer,
    audience,
    clockTolerance: 30,
    maxTokenAge: MAX_LIFETIME_S, // also refuses an iat in the future
    requiredClaims: REQUIRED_CLAIMS,
  });
  checkClaims(payload);
  return payload;
}

async function main(): Promise<number> {
  const [token, ...more] = process.argv.slice(2);
  if (token === undefined || more.length > 0) {
    console.error("usage: verify.js TOKEN");
    return 2;
  }
  const issuer = process.env["TESSERA_ISSUER"] ?? "http://127.0.0.1:3002";
  const url = process.env["TESSERA_JWKS_URL"] ?? `${issuer.replace(/\/+$/, "")}/.well-known/jwks.json`;
  const audience = process.env["TESSERA_AUDIENCE"] ?? issuer;
  try {
    const keys = createRemoteJWKSet(new URL(url), { cooldownDuration: 30_000, timeoutDuration: 5_000 });
    console.log(JSON.stringify(await verify(token, issuer, audience, keys)));
    return 0;
  } catch (error) {
    const aboutToken = error instanceof Refused || (error instanceof errors.JOSEError && !NO_KEYS.has(error.code));
    console.error(`${aboutToken ? "invalid token" : "cannot decide"}: ${error instanceof Error ? error.message : error}`);
    return aboutToken ? 1 : 2;
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) process.exitCode = await main();
