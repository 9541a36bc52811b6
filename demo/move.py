#!/usr/bin/env python3
"""A shard is added to a cluster under load, a quarter of all users moves there, and moves back.

Starts a cluster of its own on free ports, and ends it whatever happens. Only the standard library; `make demo-move`
builds what it needs. Exits with 1 if a single request failed.
Usage: move.py FOLDER_OF_THE_EXECUTABLES [--rate 60] [--people 200] [--calm 5] …
"""
import argparse
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

PARSER = argparse.ArgumentParser()
PARSER.add_argument("bin")
PARSER.add_argument("--rate", type=int, default=60, help="requests a second")
PARSER.add_argument("--people", type=int, default=200, help="who is signed up first")
PARSER.add_argument("--mix", default="verify:58,refresh:40,login:2", help="what they ask for")
PARSER.add_argument("--servers", default="auto", help="auto, fetch or system")
PARSER.add_argument("--calm", type=float, default=5, help="seconds before, between and after the moves")
ARGS = PARSER.parse_args()

STORE = os.path.abspath(".tessera")
LONGEST_S = 900
CHUNK = 4096
# What nodes count when they turn somebody away.
REFUSALS = ("tessera_hash_rejected_total{", "tessera_store_errors_total{", "tessera_shard_shed_total{")
# From the first of these to the last, no write of the range is taken anywhere.
WINDOW = ["fenced", "drained", "marker_arrived", "snapshots_pinned", "decided", "activated"]


def title(text):
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def tool(name, *arguments):
    return [os.path.join(ARGS.bin, name), *map(str, arguments)]


def start(command, **more):
    """A process that gets no Ctrl-C of its own, so that we end things in order, and that does not outlive us."""
    def ends_with_us():
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)

    return subprocess.Popen(command, text=True, start_new_session=True, preexec_fn=ends_with_us, **more)


def lines_of(command):
    """What a command prints, line by line. It is asked to end, and waited for, if we are interrupted."""
    process = start(command, stdout=subprocess.PIPE)
    try:
        yield from process.stdout
    finally:
        if process.poll() is None and sys.exc_info()[0] is not None:
            process.terminate()
        process.wait()
    if process.returncode:
        sys.exit(f"{os.path.basename(command[0])} {' '.join(command[1:])} ended with {process.returncode}")


def show(command):
    for line in lines_of(command):
        print(" ", line, end="", flush=True)


class Cluster:
    """A cluster in a temporary folder. Its guard ends it when we are gone, in whatever way."""

    def __init__(self):
        self.home = tempfile.mkdtemp(prefix="tessera-move-")
        os.chmod(self.home, 0o711)
        guard = tool("devcluster", "--dir", self.home, "guard", "--temporary")
        self.guard = subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True)

    def start(self):
        up = ["up", "--detach", "--free-ports", "--servers", ARGS.servers, "--cache", STORE]
        show(tool("devcluster", "--dir", self.home, *up))

    def ports(self, prefix, which="port"):
        with open(os.path.join(self.home, "cluster.json"), encoding="utf-8") as file:
            parts = json.load(file)["parts"]
        return [f"127.0.0.1:{part[which]}" for part in parts if part["name"].startswith(prefix)]

    def shardctl(self, *arguments):
        reach = ["--directory", self.ports("directory")[0], "--secrets", os.path.join(self.home, "secrets")]
        return tool("shardctl", *reach, *arguments)

    def add_shard(self):
        for _ in lines_of(tool("devcluster", "--dir", self.home, "add-shard")):
            pass
        primary, *replicas = self.ports("shard-4-")
        return f"4={primary}" + (f",replicas={','.join(replicas)}" if replicas else "")

    def keep_traces(self):
        """What the parts printed and counted, for whoever wants to know why it went wrong; the refusals at once."""
        kept = os.path.join(STORE, "demo-move-logs")
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(os.path.join(self.home, "logs"), kept)
        for number, ops in enumerate(self.ports("node-", "second_port"), 1):
            with urllib.request.urlopen(f"http://{ops}/metrics", timeout=5) as answer:
                counted = answer.read().decode()
            with open(os.path.join(kept, f"node-{number}.metrics"), "w", encoding="utf-8") as file:
                file.write(counted)
            for line in counted.splitlines():
                if line.startswith(REFUSALS):
                    print(f"  node-{number}  {line}")
        return kept

    def end(self):
        self.guard.stdin.close()
        self.guard.wait()


class Load:
    """Requests on a schedule, and the file in which it finds what happened meanwhile."""

    def __init__(self, cluster):
        self.marks = os.path.join(cluster.home, "marks")
        hosts = ",".join(f"http://{node}" for node in cluster.ports("node-"))
        command = tool("loadtest", "open", "--host", hosts, "--rate", ARGS.rate, "--mix", ARGS.mix,
                       "--in-flight", ARGS.people, "--time", LONGEST_S, "--max-errors", 0,
                       "--marks", self.marks, "--reports", os.path.join(STORE, "reports"))
        self.process = start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        # It says when it has signed everybody up and begins.
        for line in self.process.stderr:
            print(" ", line, end="", flush=True)
            if "/s for" in line:
                return
        sys.exit("the load did not begin")

    def mark(self, label, since=None):
        now = time.time()
        span = f"{since * 1000:.0f}-{now * 1000:.0f}" if since else f"{now * 1000:.0f}"
        with open(self.marks, "a", encoding="utf-8") as file:
            file.write(f"{span}\t{label}\n")

    def end(self):
        """What it says about the run, and whether every request was answered well."""
        self.process.send_signal(signal.SIGINT)
        said, complaint = self.process.communicate()
        sys.stderr.write(complaint)
        return said, self.process.returncode == 0


def follow(command, load, way):
    """Prints a mover's steps as they come; each move's number and its window in ms."""
    windows, open_ms = {}, {}
    for line in lines_of(command):
        told = json.loads(line)
        if "step" not in told:
            continue
        move, step, took = told["move_id"], told["step"], told["took_ms"]
        print(f"  move {move}  {took:9.1f} ms  {step}", flush=True)
        if step in WINDOW:
            open_ms[move] = open_ms.get(move, 0) + took
        if step == "undone":
            open_ms.pop(move, None)
        if step == "activated":
            windows[move] = open_ms.pop(move)
            load.mark(f"window of move {move}, {way}", since=time.time() - windows[move] / 1000)
    return windows


def moves(cluster, load):
    """The story itself; the windows there and back."""
    time.sleep(ARGS.calm)
    title("A fourth shard: servers first, then the directory hears of it.")
    load.mark("devcluster add-shard")
    shard = cluster.add_shard()
    show(cluster.shardctl("add-shard", shard))
    load.mark("shardctl add-shard")

    title("Which buckets should move? As few as give every shard its share.")
    show(cluster.shardctl("plan", "--chunk", CHUNK, "--write"))

    title("They move, one range after the other, while users log in.")
    controller = cluster.shardctl("--json", "controller", "--until-idle", "--interval-s", 0.2)
    there = follow(controller, load, "there")
    show(cluster.shardctl("status"))
    time.sleep(ARGS.calm)

    title("And back, with everything that was written since.")
    back = {}
    for move in there:
        back |= follow(cluster.shardctl("--json", "rollback", move), load, "back")
    show(cluster.shardctl("status"))
    time.sleep(ARGS.calm)
    return there, back


def told(way, windows):
    each = ", ".join(f"{window:.0f} ms" for window in windows.values())
    print(f"  {way:<6}{len(windows)} moves, windows of {each}")


def run(cluster):
    title("A cluster of three shards, two nodes and Redis.")
    cluster.start()
    title("Load: every request at its time, whatever the cluster does meanwhile.")
    load = Load(cluster)
    try:
        there, back = moves(cluster, load)
    finally:
        title("What the users saw")
        said, good = load.end()
        print(said)
    told("there", there)
    told("back", back)
    if not good or not there or set(there) != set(back):
        sys.exit(f"demo-move: not as it should be; logs and metrics are in {cluster.keep_traces()}")
    print("demo-move: a quarter of the users moved and came back, and every request was answered")


def interrupted(*_):
    raise KeyboardInterrupt


def main():
    signal.signal(signal.SIGTERM, interrupted)
    cluster = Cluster()
    try:
        run(cluster)
    except KeyboardInterrupt:
        sys.exit("demo-move: interrupted")
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("stopping the cluster", file=sys.stderr)
        cluster.end()


if __name__ == "__main__":
    main()
