"""Who calls: schemathesis asks here for the Authorization of each of its cases. CALLER says which kind of caller it is.

nobody   no token at all
garbage  something that is no token of ours
ended    a good token of a session that is over
user     a user of their own for each call that ends a session or an account, else one for many calls
"""

import json
import os
import time
import urllib.request

import schemathesis

BASE = os.environ["TESSERA_URL"]
CALLER = os.environ.get("CALLER", "user")
PASSWORD = "correct horse battery"
# Calls after which the token is good for nothing.
ENDS = {"logout", "deleteMe"}


def post(path, body, token=None):
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(BASE + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or b"null")


class Users:
    """Makes callers."""

    made = 0
    shared = None
    until = 0.0

    @classmethod
    def new_token(cls):
        cls.made += 1
        email = f"fuzz-{os.getpid()}-{time.time_ns()}-{cls.made}@example.com"
        post("/auth/v1/register", {"email": email, "password": PASSWORD})
        return post("/auth/v1/login", {"email": email, "password": PASSWORD})["access_token"]

    @classmethod
    def token(cls, ends):
        if ends:
            return cls.new_token()
        if time.monotonic() > cls.until:
            # Well inside the life of an access token.
            cls.shared, cls.until = cls.new_token(), time.monotonic() + 120
        return cls.shared


def ended():
    token = Users.new_token()
    post("/auth/v1/logout", {}, token)
    return token


ENDED = ended() if CALLER == "ended" else None


@schemathesis.auth(refresh_interval=None)
class Caller:
    def get(self, case, context):
        if CALLER == "user":
            return Users.token(case.operation.definition.raw.get("operationId") in ENDS)
        return {"ended": ENDED, "garbage": "no.token.of-ours"}.get(CALLER)

    def set(self, case, data, context):
        if data and case.operation.definition.raw.get("security"):
            case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}
