"""Verify a Tessera access token with PyJWT, as strictly as PyJWT can be told to.

    TESSERA_ISSUER=http://127.0.0.1:3002 python verify.py TOKEN

Prints the claims as JSON and exits 0; or prints the reason on stderr and exits 1 for a bad token, 2 if the keys
could not be had (answer 503 then, never 401) or the call is wrong.

Environment: TESSERA_ISSUER (default http://127.0.0.1:3002), TESSERA_JWKS_URL (default
{issuer}/.well-known/jwks.json), TESSERA_AUDIENCE (default the issuer).
"""

import json
import os
import sys

import jwt

MAX_TOKEN_BYTES = 8 * 1024
MAX_LIFETIME_S = 3600
LEEWAY_S = 30
FORBIDDEN_MEMBERS = {"crit", "b64", "zip", "jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256"}
REQUIRED_CLAIMS = ["iss", "sub", "aud", "client_id", "sid", "jti", "iat", "exp", "auth_time", "amr", "tenant"]


def check_header(token: str) -> None:
    """What PyJWT leaves to us: the size, the type, members that bring their own key."""
    if len(token) > MAX_TOKEN_BYTES:
        raise jwt.InvalidTokenError("the token is too large")
    header = jwt.get_unverified_header(token)
    if header.get("typ") != "at+jwt":
        raise jwt.InvalidTokenError("the token is not an access token")
    if header.get("alg") != "EdDSA":  # before any key is fetched; decode() checks it again
        raise jwt.InvalidAlgorithmError("the token algorithm is not accepted")
    if not isinstance(header.get("kid"), str) or not header["kid"]:
        raise jwt.InvalidTokenError("the token key id is missing or malformed")
    if FORBIDDEN_MEMBERS & header.keys():
        raise jwt.InvalidTokenError("the token header has a forbidden member")


def check_claims(claims: dict) -> None:
    """PyJWT converts dates with int(): a string or a float would pass."""
    for name in ("iat", "exp", "auth_time"):
        if type(claims[name]) is not int or claims[name] < 0:
            raise jwt.InvalidTokenError(f"the token claim {name} is missing or malformed")
    if not 0 < claims["exp"] - claims["iat"] <= MAX_LIFETIME_S:
        raise jwt.InvalidTokenError("the token lifetime is out of range")


def verify(token: str, issuer: str, audience: str, keys: jwt.PyJWKClient) -> dict:
    """The claims of `token`. A service makes `keys` once and keeps it: it caches the set."""
    check_header(token)
    key = keys.get_signing_key_from_jwt(token)
    claims = jwt.decode(
        token,
        key,
        algorithms=["EdDSA"],
        issuer=issuer,
        audience=audience,
        leeway=LEEWAY_S,
        options={"require": REQUIRED_CLAIMS},
    )
    check_claims(claims)
    return claims


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: verify.py TOKEN", file=sys.stderr)
        return 2
    issuer = os.environ.get("TESSERA_ISSUER", "http://127.0.0.1:3002")
    url = os.environ.get("TESSERA_JWKS_URL", issuer.rstrip("/") + "/.well-known/jwks.json")
    audience = os.environ.get("TESSERA_AUDIENCE", issuer)
    try:
        claims = verify(sys.argv[1], issuer, audience, jwt.PyJWKClient(url, lifespan=300, timeout=5))
    except jwt.PyJWKClientConnectionError as error:
        print(f"cannot decide: {error}", file=sys.stderr)
        return 2
    except jwt.PyJWTError as error:
        print(f"invalid token: {error}", file=sys.stderr)
        return 1
    print(json.dumps(claims))
    return 0


if __name__ == "__main__":
    sys.exit(main())
