/**
 * Judge every token of a corpus with verify.ts, at the corpus's own time and with its own keys.
 *
 *     node dist/corpus.js ../corpus/tokens.json
 *
 * Prints one JSON object: the name of each token, and null if it was accepted or the reason why not.
 */
import { readFileSync } from "node:fs";
import { mock } from "node:test";
import { createLocalJWKSet, type JSONWebKeySet } from "jose";
import { verify } from "./verify.js";

interface Corpus {
  issuer: string;
  audience: string;
  now_s: number;
  jwks: JSONWebKeySet;
  tokens: { name: string; token: string }[];
}

const corpus: Corpus = JSON.parse(readFileSync(process.argv[2]!, "utf8"));
mock.timers.enable({ apis: ["Date"], now: corpus.now_s * 1000 });
const keys = createLocalJWKSet(corpus.jwks);
const verdicts: Record<string, string | null> = {};
for (const { name, token } of corpus.tokens) {
  try {
    await verify(token, corpus.issuer, corpus.audience, keys);
    verdicts[name] = null;
  } catch (error) {
    verdicts[name] = String(error); // whatever it is, the token was not accepted
  }
}
console.log(JSON.stringify(verdicts));
