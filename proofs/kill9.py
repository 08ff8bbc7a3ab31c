#!/usr/bin/env python3
"""Kills a running pipeline with SIGKILL at random moments, again and again, and then reads its output files.

    kill9.py BINARY [--kills 100] [--events 1000000] [--seed N] [--keep]

Events flow from a file and, with retries under an Idempotency-Key, over HTTP. The checker knows the events that it
made and reads only the sinks' files: every event must be there once, in the right file, with the right figures, and
in order for its key. It does not trust any of the program's own counters.
"""

import argparse
import decimal
import http.client
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
KEYS = 1000
FACTORS = {"a": 1, "b": 3, "c": 10}


def event(i):
    """Event number i: a pure function, so that the checker needs no copy of the input."""
    kind = "abcx"[(i * 7919) % 4]  # x has no factor: the left join leaves it open
    cents = (i * 104729) % 50000 - 500  # about one in a hundred is not positive
    return {"id": i, "k": f"k{(i * 31) % KEYS}", "n": i // KEYS, "amount": f"{cents / 100:.2f}", "kind": kind}


def expected(i):
    """(topic, row without offsets) that event i must end in."""
    e = event(i)
    amount = decimal.Decimal(e["amount"])
    if amount <= 0:
        return "letter", None
    factor = FACTORS.get(e["kind"])
    if factor is None:
        return "odd", None
    return ("small" if amount * factor < 1000 else "large"), amount * factor


def write_input(folder, count):
    with open(folder / "input.ndjson", "w") as out:
        for i in range(count):
            e = event(i)
            out.write(
                f'{{"id":{i},"k":"{e["k"]}","n":{e["n"]},"amount":{e["amount"]},"kind":"{e["kind"]}"}}\n'
            )
    (folder / "kinds.csv").write_text("kind,factor\n" + "".join(f"{k},{f}\n" for k, f in FACTORS.items()))


class Caller(threading.Thread):
    """Sends events over HTTP while the server dies and comes back; retries each until it is answered."""

    def __init__(self, first, stop):
        super().__init__(daemon=True)
        self.next, self.stop, self.port, self.answers = first, stop, None, {}

    def run(self):
        while not self.stop.is_set():
            self.send(self.next)
            self.next += 1

    def send(self, i):
        while True:
            if self.stop.is_set() and self.port is None:
                time.sleep(0.05)  # the last one must still be answered: the final run is coming
            try:
                call = http.client.HTTPConnection("127.0.0.1", self.port or 1, timeout=5)
                body = json.dumps(event(i))
                call.request("POST", "/events", body, {"Content-Type": "application/json", "Idempotency-Key": f"e{i}"})
                answer = call.getresponse()
                text = answer.read()
                if answer.status in (200, 202, 422):
                    self.answers[i] = answer.status
                    return
                if answer.status not in (409, 429, 503, 507):
                    raise SystemExit(f"unexpected answer {answer.status}: {text[:300]}")
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.02)


def start(binary, folder, log):
    """Starts the pipeline; the address that it prints tells the port."""
    process = subprocess.Popen(
        [binary, "run", str(folder)], stdout=log, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    found = {}

    def watch():
        for line in process.stderr:
            log.write(line)
            if "port" not in found and "http://127.0.0.1:" in line:
                digits = line.split("http://127.0.0.1:")[1]
                found["port"] = int("".join(c for c in digits[:6].split("/")[0] if c.isdigit()))
        log.flush()

    threading.Thread(target=watch, daemon=True).start()
    return process, found


def rows(folder):
    """Every row of every file below a sink's folder, file by file in name order."""
    for path in sorted(folder.rglob("*.ndjson")):
        topic, partition = path.parent.name, path.name.split("-")[0]
        with open(path) as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield topic, partition, json.loads(line, parse_float=decimal.Decimal), f"{path.name}:{number}"
                except ValueError:
                    raise SystemExit(f"FAULT: {path}:{number} is not JSON: {line[:200]!r}")


def check(folder, ids):
    """Compares the files with what the events of `ids` must give."""
    faults, seen, last = [], {}, {}

    def fault(text):
        faults.append(text)

    for topic, partition, row, place in rows(folder / "out" / "results"):
        i = row["id"]
        if i in seen:
            fault(f"event {i} twice: {seen[i]} and {topic} {place}")
        seen[i] = f"{topic} {place}"
        want, total = expected(i)
        if want != topic:
            fault(f"event {i} in {topic}, not {want} ({place})")
        elif total is not None and decimal.Decimal(row["total"]) != total:
            fault(f"event {i} has total {row['total']}, not {total} ({place})")
        if i < ids[0]:  # only the file has an order of its own
            where = (topic, row["k"])
            if last.get(where, -1) >= row["n"]:
                fault(f"key {row['k']} out of order in {topic}: {row['n']} after {last[where]} ({place})")
            last[where] = row["n"]
    letters = 0
    for _, _, row, place in rows(folder / "out" / "letters"):
        body = row["event"]
        body = json.loads(body) if isinstance(body, str) else body
        i = body["id"]
        if i in seen:
            fault(f"event {i} twice: {seen[i]} and the dead letter {place}")
        seen[i] = f"letter {place}"
        letters += 1
        if expected(i)[0] != "letter":
            fault(f"event {i} is a dead letter without reason ({place})")
        if row["rules"] != ["positive"]:
            fault(f"event {i} broke {row['rules']} ({place})")
    wanted = set(range(ids[0])) | set(ids[1])
    for i in sorted(wanted - set(seen))[:20]:
        fault(f"event {i} is lost (expected in {expected(i)[0]})")
    for i in sorted(set(seen) - wanted)[:20]:
        fault(f"event {i} came from nowhere: {seen[i]}")
    lost, extra = len(wanted - set(seen)), len(set(seen) - wanted)
    print(f"checked {len(seen)} events ({letters} dead letters): {lost} lost, {extra} unknown, {len(faults)} faults")
    for text in faults[:20]:
        print("  FAULT:", text)
    return not faults


def main():
    args = argparse.ArgumentParser()
    args.add_argument("binary", type=pathlib.Path)
    args.add_argument("--kills", type=int, default=100)
    args.add_argument("--events", type=int, default=1_000_000)
    args.add_argument("--seed", type=int, default=int(time.time()))
    args.add_argument("--keep", action="store_true", help="keep the folder")
    args = args.parse_args()
    print(f"kill9: seed {args.seed}, {args.kills} kills, {args.events} events")
    chance = random.Random(args.seed)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kill9-"))
    for name in ("pipeline.yaml",):
        shutil.copy(HERE / "kill9" / name, folder / name)
    write_input(folder, args.events)
    binary = str(args.binary.resolve())
    stop = threading.Event()
    caller = Caller(args.events, stop)
    caller.start()
    began, early = time.time(), 0
    with open(folder / "run.log", "w") as log:
        for kill in range(args.kills):
            process, found = start(binary, folder, log)
            # Sometimes during opening, mostly in full flight.
            deadline = time.time() + chance.choice((0.02, 0.1, 0.3, 0.6)) * (0.5 + chance.random())
            while time.time() < deadline:
                caller.port = found.get("port")
                time.sleep(0.005)
            if process.poll() is not None:
                raise SystemExit(f"FAULT: the pipeline ended by itself with {process.returncode}; see {folder}/run.log")
            early += "port" not in found
            process.send_signal(signal.SIGKILL)
            process.wait()
            caller.port = None
        process, found = start(binary, folder, log)
        while "port" not in found and process.poll() is None:
            time.sleep(0.01)
        stop.set()
        caller.port = found.get("port")
        caller.join(timeout=60)
        if caller.is_alive():
            raise SystemExit(f"FAULT: the last call is not answered; see {folder}/run.log")
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        # The API never ends by itself, so the last pass runs without it.
        text = (folder / "pipeline.yaml").read_text()
        (folder / "pipeline.yaml").write_text("".join(l for l in text.splitlines(True) if not l.startswith("  api:")))
        done = subprocess.run(
            [binary, "run", str(folder), "--drain"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=1800
        )
        if done.returncode != 0:
            raise SystemExit(f"FAULT: --drain ended with {done.returncode}; see {folder}/run.log")
    called = sorted(caller.answers)
    print(f"{args.kills} kills ({early} before the address was printed) in {time.time() - began:.0f} s, {len(called)} events answered over HTTP")
    good = check(folder, (args.events, called))
    if good and not args.keep:
        shutil.rmtree(folder)
    else:
        print(f"left in {folder}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
