"""Judge every token of a corpus with verify.py, at the corpus's own time and with its own keys.

    python corpus.py ../corpus/tokens.json

Prints one JSON object: the name of each token, and null if it was accepted or the reason why not.
"""

import datetime
import json
import sys
from unittest import mock

import jwt

import verify


class Keys(jwt.PyJWKClient):
    """A key set that is already here."""

    def __init__(self, jwks: dict):
        super().__init__("http://127.0.0.1:1/never-asked")
        self.jwks = jwks

    def fetch_data(self) -> dict:
        return self.jwks


def clock(now_s: int) -> type:
    """A datetime that stands still: PyJWT takes no other time than now."""

    class Still(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(now_s, tz)

    return Still


def verdict(token: str, corpus: dict, keys: Keys) -> str | None:
    try:
        verify.verify(token, corpus["issuer"], corpus["audience"], keys)
    except Exception as error:  # whatever it is, the token was not accepted
        return f"{type(error).__name__}: {str(error)!a}"  # a text may hold half a surrogate
    return None


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        corpus = json.load(file)
    keys = Keys(corpus["jwks"])
    with mock.patch("jwt.api_jwt.datetime", clock(corpus["now_s"])):
        print(json.dumps({case["name"]: verdict(case["token"], corpus, keys) for case in corpus["tokens"]}))


if __name__ == "__main__":
    main()
