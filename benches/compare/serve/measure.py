"""Runs both servers in turn under the same load and writes what came of it as Markdown.

usage: measure.py PROGRAM VECTORS ROOM SECONDS REPORT [ROUNDS]
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from statistics import median

program, vectors, room, seconds, report = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5])
here = Path(__file__).parent
KINDS = {
    "texts-ids": "texts, 10 ids",
    "images-ids": "images, 10 ids",
    "texts-full": "texts, 40 with metadata",
    "images-full": "images, 40 with metadata",
}
REQUESTS = 200_000
ROUNDS = int(sys.argv[6]) if len(sys.argv) > 6 else 3


@contextmanager
def running(command, address):
    log = room / f"server-{address.rsplit(':', 1)[1]}.log"
    server = subprocess.Popen(command, stdout=open(log, "w"), stderr=subprocess.STDOUT)
    try:
        for _ in range(480):
            try:
                urllib.request.urlopen(f"{address}/indices-list").read()
                break
            except OSError:
                time.sleep(0.5)
                assert server.poll() is None, f"{command[0]} ended; see {log}"
        yield server.pid
    finally:
        server.terminate()
        server.wait()


@contextmanager
def ours(recall, port=18401):
    address = f"http://127.0.0.1:{port}"
    command = [program, "serve", f"news={room}/news.tintype", "--listen", f"127.0.0.1:{port}", "--recall", str(recall), "--quiet"]
    with running(command, address) as pid:
        yield pid, address


@contextmanager
def theirs(port, *folder):
    address = f"http://127.0.0.1:{port}"
    with running([sys.executable, here / "peer.py", "serve", room, str(port), *folder], address) as pid:
        yield pid, address


def recall_of(address, first, nearest=10):
    command = [sys.executable, here / "recall.py", vectors, room / "texts-ids.jsonl", address, str(first), str(nearest)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def load(address, kind, lasting=seconds):
    command = ["wrk", "-t1", "-c64", f"-d{lasting}s", "--timeout", "30s", "-s", here / "load.lua", address, "--", room / f"{kind}.jsonl"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()[-1])


def loads(addresses):
    """Of each server and kind the medians of its rounds; the servers take turns, so that each has its share of what else goes on."""
    results = {}
    for kind in KINDS:
        rounds = [[load(address, kind) for address in addresses] for _ in range(ROUNDS)]
        for address, of_one in zip(addresses, zip(*rounds)):
            result = {key: median(one[key] for one in of_one) for key in ("per_second", "p50_ms", "p99_ms")}
            result["errors"] = sum(one["errors"] for one in of_one)
            results.setdefault(address, {})[kind] = result
            print(address, kind, [one["per_second"] for one in of_one], json.dumps(result), flush=True)
    return [results[address] for address in addresses]


def resident(pid):
    text = Path(f"/proc/{pid}/status").read_text()
    return tuple(int(re.search(rf"{name}:\s+(\d+)", text)[1]) / 1024 for name in ("VmRSS", "RssAnon"))


def sustained(pid, address):
    """A minute of texts, then pictures until there were enough requests; the memory after each."""
    minute = load(address, "texts-ids", 60)
    print("sustained", json.dumps(minute), flush=True)
    rows, done = [(0, *resident(pid))], 0
    while done < REQUESTS:
        last = load(address, "images-ids", 10)
        assert last["errors"] == 0, last
        done += last["requests"]
        rows.append((done, *resident(pid)))
    return minute, rows


made = json.loads((room / "clip-retrieval" / "image.json").read_text())
with theirs(18411) as (_, peer_at), ours(0.95) as (pid, default_at):
    peer_recall, default_recall = recall_of(peer_at, 0), recall_of(default_at, 1)
    minute, remembered = sustained(pid, default_at)
    # tintype made to find at least as much as clip_back as it was made, and clip_back made to find at most as much as tintype by default.
    for asked in (0.8, 0.85, 0.9, 0.925, 0.95, 0.955, 0.96, 0.965, 0.97, 0.975, 0.98, 0.985, 0.99, 1.0):
        with ours(asked, 18402) as (_, address):
            equal_recall = recall_of(address, 1)
        if equal_recall >= peer_recall:
            break
    tune = [sys.executable, here / "peer.py", "tune", room, vectors, str(default_recall)]
    width, _ = subprocess.run(tune, capture_output=True, text=True, check=True).stdout.split()
    with ours(asked, 18402) as (_, equal_at), theirs(18412, "clip-retrieval-tuned") as (_, tuned_at):
        tuned_recall = recall_of(tuned_at, 0)
        forty = [recall_of(address, first, 40) for address, first in ((peer_at, 0), (equal_at, 1), (tuned_at, 0), (default_at, 1))]
        print("recall", peer_recall, asked, equal_recall, width, tuned_recall, default_recall, "of forty", forty, flush=True)
        peer, equal, tuned, default = loads([peer_at, equal_at, tuned_at, default_at])


def cell(result):
    errors = f", **{result['errors']} errors**" if result["errors"] else ""
    return f"{result['per_second']:,.0f}/s, p50 {result['p50_ms']:.1f} ms, p99 {result['p99_ms']:.1f} ms{errors}"


def row(kind):
    ratio = lambda ours, other: f"**{ours[kind]['per_second'] / other[kind]['per_second']:.1f} ×**"
    return (
        f"| {KINDS[kind]} | {cell(peer[kind])} | {cell(equal[kind])}: {ratio(equal, peer)} "
        f"| {cell(tuned[kind])} | {cell(default[kind])}: {ratio(default, tuned)} |"
    )


commit = os.environ.get("COMMIT") or subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
# Every tenth of the way, not every line.
shown = remembered[:: max(1, len(remembered) // 10)] + [remembered[-1]] * ((len(remembered) - 1) % max(1, len(remembered) // 10) > 0)
report.write_text(
    f"""# Measured on {date.today()}

{model[1] if model else "a processor"}, {len(os.sched_getaffinity(0))} core(s) shared by server and load; load average {os.getloadavg()[0]:.1f} at the end; commit {commit}.
`benches/compare/serve/run {Path(vectors).name} {seconds} {ROUNDS}`: `wrk -t1 -c64`, {seconds} seconds on end for each server and kind of request.

100,000 vectors, 1,203 texts as queries, 64 connections; {f"medians of {ROUNDS} rounds" if ROUNDS > 1 else "one round"}, the servers in turn. Recall is the share found of the
ten nearest to a text. Two comparisons, tintype's recall in neither of them the lesser: clip_back with the index as clip_index made it
here ({made['index_param']}: autofaiss takes what it finds within 10 ms, so a faster machine gives a slower and better index) beside
the first of tintype's settings that finds as much, and tintype as it is by default beside the widest clip_back that does not find more.

| requests | clip_back as made: recall {peer_recall:.3f} | tintype `--recall {asked}`: {equal_recall:.3f} | clip_back, efSearch={width}: {tuned_recall:.3f} | tintype by default: {default_recall:.3f} |
|---|---|---|---|---|
"""
    + "\n".join(row(kind) for kind in KINDS)
    + f"""

Of the forty nearest to a text they find {', '.join(f'{share:.3f}' for share in forty)}, from left to right.

Texts at the default for a minute on end: {cell(minute)}, {minute['errors']} errors in {minute['requests']:,} requests.

Memory of tintype over {remembered[-1][0]:,} requests, in MB:

| requests | resident | its own |
|---|---|---|
"""
    + "\n".join(f"| {done:,} | {all_:.0f} | {own:.1f} |" for done, all_, own in shown)
    + "\n"
)
print(report.read_text())
