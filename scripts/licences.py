#!/usr/bin/env python3
"""Every crate that we build with must be under a licence that we accept.

Reads `cargo metadata`; each SPDX expression must be satisfiable with the ALLOWED identifiers alone.
A crate without an expression fails. Standard library only.
"""

import json
import re
import subprocess
import sys

ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "NCSA",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
}


def tokens(expression):
    # Old manifests write "MIT/Apache-2.0" for OR.
    return re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))


def allowed(expression):
    """Whether some choice among the alternatives needs only allowed licences."""
    words = tokens(expression)

    def either():
        value = both()
        while words and words[0] == "OR":
            words.pop(0)
            value = both() or value
        return value

    def both():
        value = one()
        while words and words[0] == "AND":
            words.pop(0)
            value = one() and value
        return value

    def one():
        if not words:
            raise ValueError(expression)
        word = words.pop(0)
        if word == "(":
            value = either()
            if not words or words.pop(0) != ")":
                raise ValueError(expression)
            return value
        if words and words[0] == "WITH":
            words.pop(0)
            word = f"{word} WITH {words.pop(0)}"
        return word in ALLOWED

    value = either()
    if words:
        raise ValueError(expression)
    return value


def refused(package):
    expression = package["license"]
    try:
        return None if expression and allowed(expression) else expression or "no licence expression"
    except (ValueError, IndexError):
        return f"not understood: {expression}"


def self_test():
    assert allowed("MIT/Apache-2.0") and allowed("MIT OR GPL-3.0") and allowed("(MIT OR X) AND Unicode-3.0")
    assert allowed("Apache-2.0 WITH LLVM-exception OR X")
    assert not allowed("MIT AND GPL-3.0") and not allowed("GPL-3.0") and not allowed("(X OR Y) AND MIT")
    assert not allowed("Apache-2.0 WITH Other-exception")


def main():
    self_test()
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--all-features"]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    problems = [(p["name"], p["version"], refused(p)) for p in metadata["packages"] if refused(p)]
    for name, version, reason in sorted(problems):
        print(f"licences: {name} {version}: {reason}", file=sys.stderr)
    print(f"licences: {len(metadata['packages'])} crates, {len(problems)} refused")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
