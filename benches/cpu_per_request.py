#!/usr/bin/env python3
"""CPU per request, read from each process's own accounting (utime + stime of /proc/PID/stat), on a cluster of its own.

Requests per second on a shared machine are noise; the CPU that one good answer costs holds still. Counts good answers
only, warms up first, prints every round and the median. Linux only; standard library only.
Usage: cpu_per_request.py FOLDER_OF_RELEASE_BINARIES [REQUESTS_A_ROUND]
"""
import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import urllib.parse

BINARIES = sys.argv[1]
REQUESTS = int(sys.argv[2]) if len(sys.argv) > 2 else 6000
ROUNDS, CLIENTS = 3, 4
TICK = os.sysconf("SC_CLK_TCK")
PASSWORD = "correct horse battery staple"


def stat(pid):
    """(parent, ticks of its own, ticks of children that it has waited for), or None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])


def ticks(roots):
    """CPU of processes and everything below them, ended children included."""
    table = {int(pid): found for pid in os.listdir("/proc") if pid.isdigit() and (found := stat(pid))}
    total = 0
    for pid, (_, own, waited) in table.items():
        up = pid
        while up in table and up not in roots:
            up = table[up][0]
        total += own + waited if up in roots else 0
    return total


class Client:
    def __init__(self, node):
        url = urllib.parse.urlsplit(node)
        self.connection = http.client.HTTPConnection(url.hostname, url.port, timeout=30)
        self.connection.connect()

    def call(self, method, path, body=None, token=None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(body)
        self.connection.request(method, path, body, headers)
        response = self.connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text else {}

    def log_in(self, name):
        account = {"email": f"{name}@example.com", "password": PASSWORD}
        self.call("POST", "/auth/v1/register", account)
        status, self.tokens = self.call("POST", "/auth/v1/login", account)
        if status != 200:
            sys.exit(f"login: {status} {self.tokens}")

    def refresh(self):
        status, answer = self.call("POST", "/auth/v1/refresh", {"refresh_token": self.tokens["refresh_token"]})
        if status == 200:
            self.tokens = answer
        return status == 200

    def check(self):
        return self.call("GET", "/auth/verify", token=self.tokens["access_token"])[0] == 200

    def keys(self):
        return self.call("GET", "/.well-known/jwks.json")[0] == 200


def drive(clients, work, requests):
    good = [0] * len(clients)

    def run(number):
        for _ in range(requests // len(clients)):
            good[number] += work(clients[number])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(good)


def measure(name, clients, work, groups):
    drive(clients, work, REQUESTS // 6)
    rounds = []
    for _ in range(ROUNDS):
        before = {group: ticks(pids) for group, pids in groups.items()}
        good = drive(clients, work, REQUESTS)
        used = {group: (ticks(pids) - before[group]) / TICK * 1e6 / max(good, 1) for group, pids in groups.items()}
        rounds.append(used)
        if good < REQUESTS * 0.999:
            print(f"  {name}: only {good} good answers of {REQUESTS}")
    for group in groups:
        values = [used[group] for used in rounds]
        shown = "  ".join(f"{value:6.0f}" for value in values)
        print(f"{name:<14} {group:<11} {statistics.median(values):6.0f} µs   rounds: {shown}")


def main():
    folder = tempfile.mkdtemp(prefix="tessera-cpu-")
    cluster = [os.path.join(BINARIES, "devcluster"), "--dir", folder]
    subprocess.run([*cluster, "up", "--free-ports", "--detach"], check=True, stdout=subprocess.DEVNULL)
    try:
        with open(os.path.join(folder, "cluster.json")) as file:
            state = json.load(file)
        parts = [(p["name"], p["port"], p["process"]["pid"]) for p in state["parts"]]
        # One node is measured; the other runs beside it as it always does.
        node = next(f"http://127.0.0.1:{port}" for name, port, _ in parts if name == "node-1")
        groups = {
            "auth-node": {pid for name, _, pid in parts if name == "node-1"},
            "PostgreSQL": {pid for name, _, pid in parts if name.startswith("shard-") and "primary" in name},
            "Redis": {pid for name, _, pid in parts if name.startswith("redis-")},
        }
        clients = [Client(node) for _ in range(CLIENTS)]
        for number, client in enumerate(clients):
            client.log_in(f"client-{number}-{os.getpid()}")
        print(f"CPU per good answer; {REQUESTS} requests a round over {CLIENTS} connections; load average {os.getloadavg()[0]:.1f}")
        with open(f"/proc/{next(iter(groups['auth-node']))}/status") as file:
            rss = next(line.split()[1] for line in file if line.startswith("VmRSS"))
        print(f"auth-node RSS after its first hashes: {int(rss) // 1024} MiB")
        measure("JWKS", clients, Client.keys, {"auth-node": groups["auth-node"]})
        measure("session check", clients, Client.check, groups)
        measure("refresh", clients, Client.refresh, groups)
    finally:
        subprocess.run([*cluster, "down"], check=False, stdout=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
