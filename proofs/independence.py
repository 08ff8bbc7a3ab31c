#!/usr/bin/env python3
"""Breaks, pauses, changes and scales one step of a running pipeline, and watches the others.

    independence.py BINARY [--rate 20000] [--pause 30] [--settle 10] [--dip 5] [--keep]

A file that grows by RATE events a second is followed by four services. While it does, `enrich` is made to panic, is
paused, is scaled to two instances, and the rules of `validate` are changed with `apply`. Printed for each trouble: the
rate of every service that was left alone, against its rate before. At the end the files are read from outside: every
event once, in the right place, under the rules that were in force when it was validated.

Exactness decides the exit code. The dips are figures, and decide only where --dip is given: a busy machine is no proof.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

PIPELINE = """\
version: 1
pipeline: independence
log: {embedded: {dir: log}}
server: {listen: 127.0.0.1:0}
defaults: {topic: {partitions: 4, key: [k]}}
topics:
  events:
    columns: {id: bigint!, k: string!, amount: int!}
sources:
  input: {file: {path: input.ndjson, format: ndjson, follow: true}, to: events}
services:
  validate: {from: events, check: {amount_in_range: amount > 0 AND amount < LIMIT}, to: valid}
  enrich: {from: valid, sql: "SELECT id, k, amount, amount * 2 AS twice FROM valid", to: enriched}
  part:
    from: enriched
    route: {first: [{when: twice < 100, to: small}], otherwise: large}
  watch: {from: valid, sql: "SELECT id, k FROM valid WHERE amount = 7", to: sevens}
sinks:
  results: {from: [small, large], file: {path: out/results, format: ndjson}}
  letters: {from: [validate.dlq], file: {path: out/letters, format: ndjson}}
"""
LIMIT_BEFORE, LIMIT_AFTER = 900, 800


def passing(limit):
    """How many of a thousand events pass the rules."""
    return limit - 1


def amount(i):
    return (i * 7919) % 1000


class Feeder(threading.Thread):
    """Appends RATE events a second to the file, in small steps, until told to stop."""

    def __init__(self, path, rate):
        super().__init__(daemon=True)
        self.path, self.rate, self.count, self.stop = path, rate, 0, threading.Event()

    def run(self):
        began = time.time()
        with open(self.path, "a") as out:
            while not self.stop.is_set():
                due = int((time.time() - began) * self.rate)
                out.write("".join(f'{{"id":{i},"k":"k{i % 500}","amount":{amount(i)}}}\n' for i in range(self.count, due)))
                out.flush()
                self.count = due
                time.sleep(0.02)


class Node:
    """The running pipeline, and its HTTP API."""

    def __init__(self, binary, folder, *flags):
        self.log = open(folder / "run.log", "a+")
        self.process = subprocess.Popen(
            [binary, "run", str(folder), *flags],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.base = None
        ready = threading.Event()

        def watch():
            for line in self.process.stderr:
                self.log.write(line)
                self.log.flush()
                if self.base is None and "http://127.0.0.1:" in line:
                    digits = line.split("http://127.0.0.1:")[1].split("/")[0].split()[0]
                    self.base = "http://127.0.0.1:" + "".join(c for c in digits if c.isdigit())
                    ready.set()
            ready.set()

        threading.Thread(target=watch, daemon=True).start()
        ready.wait(30)
        if self.base is None:
            raise SystemExit(f"FAULT: the node did not start; see {folder}/run.log")

    def call(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def events(self):
        status = self.call("/api/status")
        return time.time(), {s["name"]: s["events_in"] for s in status["services"]}, status

    def wait(self, what, condition, limit=60):
        until = time.time() + limit
        while time.time() < until:
            status = self.call("/api/status")
            if condition({s["name"]: s for s in status["services"]}, status):
                return
            time.sleep(0.05)
        raise SystemExit(f"FAULT: waited {limit} s for {what}: {json.dumps(status)[:2000]}")


def rates(node, seconds):
    began, first, _ = node.events()
    time.sleep(seconds)
    ended, last, _ = node.events()
    return {name: (last[name] - first[name]) / (ended - began) for name in last}


def main():
    args = argparse.ArgumentParser()
    args.add_argument("binary", type=pathlib.Path)
    args.add_argument("--rate", type=int, default=20000)
    args.add_argument("--pause", type=float, default=30)
    args.add_argument("--settle", type=float, default=10)
    args.add_argument("--dip", type=float, help="fail where an untouched service loses more than this per cent")
    args.add_argument("--keep", action="store_true")
    args = args.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="independence-"))
    binary = str(args.binary.resolve())
    (folder / "pipeline.yaml").write_text(PIPELINE.replace("LIMIT", str(LIMIT_BEFORE)))
    (folder / "input.ndjson").touch()
    feeder = Feeder(folder / "input.ndjson", args.rate)
    os.environ["MILLSTREAM_ALLOW_FAULTS"] = "1"
    node = Node(binary, folder)
    feeder.start()
    time.sleep(2)
    before = rates(node, args.settle)
    print(f"before           " + "  ".join(f"{n} {r:,.0f}/s" for n, r in sorted(before.items())))
    worst, limit = 0.0, LIMIT_BEFORE

    def trouble(name, act, touched, seconds, undo=None):
        nonlocal worst, limit
        act()
        limit = LIMIT_AFTER if act is apply else limit
        during = rates(node, seconds)
        if undo:
            undo()
        share = passing(limit) / passing(LIMIT_BEFORE)  # stricter rules let fewer events through to the others
        fair = {n: before[n] * (1 if n == "validate" else share) for n in before}
        dips = {n: 100 * (1 - during[n] / fair[n]) for n in before if n not in touched}
        worst = max(worst, *dips.values())
        print(f"{name:16} " + "  ".join(f"{n} {during[n]:,.0f}/s ({-dips[n]:+.1f} %)" for n in sorted(dips)))
        node.wait(f"the lag to go after {name}", lambda s, _: all(x["lag"] < args.rate for x in s.values()))

    def panic():
        node.call("/api/services/enrich/inject", {"fault": "panic"})

    def apply():
        text = PIPELINE.replace("LIMIT", str(LIMIT_AFTER))
        (folder / "pipeline.yaml").write_text(text)
        done = subprocess.run([binary, "apply", str(folder), "--address", node.base], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"FAULT: apply ended with {done.returncode}: {done.stdout}{done.stderr}")

    below = {"enrich", "part"}  # what reads from enrich starves with it: that is no dip of its own
    trouble("enrich panics", panic, below, args.settle)
    trouble(
        f"paused {args.pause:.0f} s", lambda: node.call("/api/services/enrich/pause", {}), below, args.pause,
        lambda: node.call("/api/services/enrich/resume", {}),
    )  # fmt: skip
    trouble("apply validate", apply, {"validate"}, args.settle)
    trouble("scale enrich 2", lambda: node.call("/api/services/enrich/scale", {"instances": 2}), below, args.settle)
    feeder.stop.set()
    feeder.join()
    _, _, status = node.events()
    restarts = {s["name"]: s["restarts"] for s in status["services"]}
    node.wait(
        "all to be processed",
        lambda s, st: st["sources"][0]["events"] >= feeder.count
        and all(x["lag"] == 0 for x in s.values())
        and all(x["lag"] == 0 for x in st["sinks"]),
    )
    node.process.send_signal(signal.SIGTERM)
    node.process.wait(timeout=60)

    # The outside check. The rules changed once, so per key there is one moment where the limit falls.
    seen, faults, fell = {}, [], {}
    for path in sorted((folder / "out").rglob("*")):
        if not path.is_file():
            continue
        kind = "letter" if "letters" in path.parts else path.parent.name
        for line in open(path):
            row = json.loads(line)
            row = row if kind != "letter" else (json.loads(row["event"]) if isinstance(row["event"], str) else row["event"])
            i = row["id"]
            if i in seen:
                faults.append(f"event {i} twice: {seen[i]} and {kind}")
            seen[i] = kind
    for i in range(feeder.count):
        a, kind = amount(i), seen.get(i)
        if kind is None:
            faults.append(f"event {i} is lost")
        elif 0 < a < LIMIT_AFTER:
            if kind != ("small" if a * 2 < 100 else "large"):
                faults.append(f"event {i} with amount {a} in {kind}")
        elif a <= 0 or a >= LIMIT_BEFORE:
            if kind != "letter":
                faults.append(f"event {i} with amount {a} in {kind}")
        else:
            new_rule = kind == "letter"
            if fell.get(i % 500, False) and not new_rule:
                faults.append(f"event {i}: the old rule after the new one")
            fell[i % 500] = new_rule
    if set(seen) - set(range(feeder.count)):
        faults.append("events from nowhere")
    print(f"checked {feeder.count} events: {len(faults)} faults; restarts {restarts}; worst dip {worst:.1f} %")
    for fault in faults[:20]:
        print("  FAULT:", fault)
    if restarts["enrich"] < 1:
        faults.append("enrich never panicked")
    if any(n for name, n in restarts.items() if name != "enrich"):
        faults.append("another service restarted")
    if args.dip is not None and worst > args.dip:
        faults.append(f"a dip of {worst:.1f} %")
    if faults or args.keep:
        print(f"left in {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
