#!/usr/bin/env python3
"""Runs the fuzz targets under libFuzzer, one after the other, and says what came of it.

    fuzz.py SECONDS [TARGET…]

Builds the binary `fuzz` with LLVM's coverage instrumentation; stable Rust and a C++ compiler will do. What libFuzzer learns
stays in .tessera/fuzz/TARGET, so that the next run goes on from there. An input that breaks a property is put into
fuzz/regressions/TARGET, where `cargo test -p fuzz` finds it from then on, and the run exits 1. Standard library only.
"""

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORK = ROOT / ".tessera" / "fuzz"
# The passes that libFuzzer needs: edge counters, and the operands of comparisons.
COVERAGE = "-Cpasses=sancov-module " + " ".join(
    f"-Cllvm-args=-sanitizer-coverage-{option}"
    for option in ("level=4", "inline-8bit-counters", "pc-table", "trace-compares")
)
MAX_INPUT_BYTES = 8192
MAX_MEMORY_MIB = 2048
MAX_INPUT_SECONDS = 10


def build():
    """The path of the instrumented binary. A target directory of its own: the flags would rebuild everything else."""
    version = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    host = re.search(r"^host: (.+)$", version, re.MULTILINE).group(1)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "fuzz"
    # With --target, build scripts and macros are left uninstrumented.
    command = ["cargo", "build", "--quiet", "--locked", "--package", "fuzz", "--features", "libfuzzer", "--bin", "fuzz"]
    command += ["--profile", "fuzz", "--target", host, "--target-dir", str(target)]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"RUSTFLAGS": COVERAGE})
    return target / host / "fuzz" / "fuzz"


def targets():
    table = (ROOT / "fuzz/src/targets/mod.rs").read_text(encoding="utf-8").split("TARGETS", 1)[1]
    return re.findall(r'^    \("(\w+)", ', table, re.MULTILINE)


def run(binary, name, seconds):
    """One target; returns its row and whether it held."""
    corpus, found = WORK / name, ROOT / "fuzz/regressions" / name
    corpus.mkdir(parents=True, exist_ok=True)
    before = set(found.glob("*"))
    command = [binary, corpus, ROOT / "fuzz/corpus" / name, f"-max_total_time={seconds}", f"-max_len={MAX_INPUT_BYTES}"]
    command += [f"-rss_limit_mb={MAX_MEMORY_MIB}", f"-timeout={MAX_INPUT_SECONDS}", "-print_final_stats=1"]
    command += [f"-dict={ROOT / 'fuzz/words.dict'}", f"-artifact_prefix={WORK / name}.found-"]
    environment = os.environ | {"TESSERA_FUZZ_TARGET": name}
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, errors="replace", cwd=WORK)
    for path in WORK.glob(f"{name}.found-*"):
        found.mkdir(parents=True, exist_ok=True)
        path.rename(found / path.name.removeprefix(f"{name}.found-"))
    crashes = sorted(set(found.glob("*")) - before)
    if done.returncode != 0:
        print(done.stderr[-4000:], file=sys.stderr)
        print(f"{name}: {', '.join(str(path) for path in crashes) or 'failed without an input'}", file=sys.stderr)
    return row(name, done.stderr, len(crashes)), done.returncode == 0


def row(name, log, crashes):
    executions = re.search(r"stat::number_of_executed_units: (\d+)", log)
    covered = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", log)
    edges, features, inputs = covered[-1] if covered else ("?", "?", "?")
    count = f"{int(executions.group(1)):,}" if executions else "?"
    return f"{name:22} {count:>12} {edges:>8} {features:>9} {inputs:>7} {crashes:>8}"


def main():
    seconds, chosen = int(sys.argv[1]), sys.argv[2:] or targets()
    unknown = set(chosen) - set(targets())
    if unknown:
        sys.exit(f"no such target: {', '.join(sorted(unknown))}; there are {' '.join(targets())}")
    binary = build()
    print(f"{'target':22} {'executions':>12} {'edges':>8} {'features':>9} {'inputs':>7} {'crashes':>8}", flush=True)
    held = True
    for name in chosen:
        line, ok = run(binary, name, seconds)
        print(line, flush=True)
        held = held and ok
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
