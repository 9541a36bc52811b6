#!/usr/bin/env python3
"""A walk through the API of a running cluster: every call as you would type it, every answer as it comes.

Only the standard library. `make demo` runs it against http://127.0.0.1:3002 and 3012 (`make up` first).
Usage: walk.py [NODE_1_URL NODE_2_URL ORDERS_EXECUTABLE]
"""
import json
import os
import secrets
import subprocess
import sys
import urllib.error
import urllib.request

ONE, TWO = sys.argv[1:3] if len(sys.argv) > 2 else ("http://127.0.0.1:3002", "http://127.0.0.1:3012")
ORDERS = sys.argv[3] if len(sys.argv) > 3 else None
SHORT = 44


def shorten(value):
    """Tokens are long; the walk shows their beginning."""
    if isinstance(value, dict):
        return {key: shorten(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shorten(inner) for inner in value]
    if isinstance(value, str) and len(value) > 80:
        return value[:SHORT] + "…"
    return value


def title(text):
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}")


def call(method, url, body=None, token=None, headers=None, expect=200):
    headers = dict(headers or {})
    line = f"  $ curl -X {method} {url}" if method != "GET" else f"  $ curl {url}"
    if token:
        headers["Authorization"] = f"Bearer {token}"
        line += f" -H 'Authorization: Bearer {token[:12]}…'"
    data = None
    if body is not None:
        headers["Content-Type"] = "application/json"
        data = json.dumps(body).encode()
        line += f" -H 'Content-Type: application/json' -d '{json.dumps(shorten(body), ensure_ascii=False)}'"
    print(line)
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=15) as response:
            status, answer, sent = response.status, response.read(), response.headers
    except urllib.error.HTTPError as error:
        status, answer, sent = error.code, error.read(), error.headers
    except urllib.error.URLError as error:
        sys.exit(f"nothing answers at {url} ({error.reason}): is the cluster up? make up DETACH=1")
    shown = json.dumps(shorten(json.loads(answer)), indent=2, ensure_ascii=False) if answer else ""
    for name in ("X-Auth-Subject", "X-Auth-Session"):
        if sent.get(name):
            shown += f"{name}: {sent[name]}\n"
    print(f"  {status}", *shown.strip().splitlines(), sep="\n    ")
    if status != expect:
        sys.exit(f"expected {expect}")
    return json.loads(answer) if answer else {}


def orders(token):
    """A service of yours, in a process of its own: it knows the JWKS and nothing else of us."""
    environment = dict(os.environ, ISSUER=ONE, PORT="0")
    service = subprocess.Popen([ORDERS], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        address = next(line.split()[1] for line in service.stdout if line.startswith("listening "))
        call("GET", f"{address}/orders", expect=401)
        call("GET", f"{address}/orders", token=token)
    finally:
        service.terminate()
        service.wait()


def main():
    email, password = f"ada.{secrets.token_hex(4)}@example.com", "correct horse battery staple"

    title("Register. The user's bucket, and so their shard, is decided by the address and stays inside the id.")
    call("POST", f"{ONE}/auth/v1/register", {"email": email, "password": password, "name": "Ada"}, expect=201)

    title("The same address again, in other letters, at the other node.")
    call("POST", f"{TWO}/auth/v1/register", {"email": email.upper(), "password": password}, expect=409)

    title("What is wrong is named, never repeated.")
    call("POST", f"{ONE}/auth/v1/register", {"email": "ada", "password": "short", "admin": True}, expect=422)

    title("Log in: a signed access token for services, a refresh token for later.")
    first = call("POST", f"{ONE}/auth/v1/login", {"email": email, "password": password})
    call("POST", f"{ONE}/auth/v1/login", {"email": email, "password": "a wrong guess"}, expect=401)

    title("The public keys, which services fetch once in a while.")
    call("GET", f"{ONE}/.well-known/jwks.json")

    if ORDERS:
        title("A service verifies the token offline (token-verifier's example `orders`).")
        orders(first["access_token"])

    title("Refresh, at the other node: any node will do.")
    second = call("POST", f"{TWO}/auth/v1/refresh", {"refresh_token": first["refresh_token"]})

    title("The answer was lost on the way? The same token again gives the same successor; nobody is logged out.")
    again = call("POST", f"{ONE}/auth/v1/refresh", {"refresh_token": first["refresh_token"]})
    if again["refresh_token"] != second["refresh_token"]:
        sys.exit("the chain forked")

    title("Forward auth, for gateways.")
    call("GET", f"{TWO}/auth/verify", token=second["access_token"])

    title("My sessions, after a login from elsewhere.")
    other = call("POST", f"{TWO}/auth/v1/login", {"email": email, "password": password})
    call("GET", f"{ONE}/auth/v1/sessions", token=second["access_token"])

    title("End all others. The other session is over at once, on every node.")
    call("DELETE", f"{ONE}/auth/v1/sessions", token=second["access_token"], expect=204)
    call("GET", f"{TWO}/auth/verify", token=other["access_token"], expect=401)
    call("POST", f"{ONE}/auth/v1/refresh", {"refresh_token": other["refresh_token"]}, expect=401)

    title("A thief and the owner both use an old token: the family is revoked.")
    third = call("POST", f"{ONE}/auth/v1/refresh", {"refresh_token": second["refresh_token"]})
    call("POST", f"{TWO}/auth/v1/refresh", {"refresh_token": first["refresh_token"]}, expect=401)
    call("POST", f"{ONE}/auth/v1/refresh", {"refresh_token": third["refresh_token"]}, expect=401)

    title("Log in again and leave for good.")
    last = call("POST", f"{ONE}/auth/v1/login", {"email": email, "password": password})
    call("PATCH", f"{ONE}/auth/v1/me", {"name": "Countess Lovelace"}, token=last["access_token"])
    call("DELETE", f"{ONE}/auth/v1/me", {"password": password}, token=last["access_token"], expect=204)
    call("POST", f"{TWO}/auth/v1/login", {"email": email, "password": password}, expect=401)
    print("\ndemo: every answer was the expected one")


if __name__ == "__main__":
    main()
