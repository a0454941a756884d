"""Runs both servers in turn under the same load and writes what came of it as Markdown.

usage: measure.py PROGRAM VECTORS ROOM SECONDS REPORT
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

program, vectors, room, seconds, report = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5])
here = Path(__file__).parent
KINDS = {
    "texts-ids": "texts, 10 ids",
    "images-ids": "images, 10 ids",
    "texts-full": "texts, 40 with metadata",
    "images-full": "images, 40 with metadata",
}
REQUESTS = 200_000


@contextmanager
def running(command, address):
    server = subprocess.Popen(command, stdout=open(room / "server.log", "w"), stderr=subprocess.STDOUT)
    try:
        for _ in range(480):
            try:
                urllib.request.urlopen(f"{address}/indices-list").read()
                break
            except OSError:
                time.sleep(0.5)
                assert server.poll() is None, f"{command[0]} ended; see {room}/server.log"
        yield server.pid
    finally:
        server.terminate()
        server.wait()


def ours(recall):
    command = [program, "serve", f"news={room}/news.tintype", "--listen", "127.0.0.1:18401", "--recall", str(recall), "--quiet"]
    return running(command, "http://127.0.0.1:18401")


def recall_of(address, first):
    command = [sys.executable, here / "recall.py", vectors, room / "texts-ids.jsonl", address, str(first)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def load(address, kind, lasting=seconds):
    command = ["wrk", "-t1", "-c64", f"-d{lasting}s", "--timeout", "30s", "-s", here / "load.lua", address, "--", room / f"{kind}.jsonl"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()[-1])


def loads(address):
    """What comes with metadata is heavier and steadier: a third of the time tells as much."""
    return {kind: load(address, kind, seconds if kind.endswith("ids") else max(5, seconds // 3)) for kind in KINDS}


def resident(pid):
    text = Path(f"/proc/{pid}/status").read_text()
    return tuple(int(re.search(rf"{name}:\s+(\d+)", text)[1]) / 1024 for name in ("VmRSS", "RssAnon"))


def memory(pid, address):
    rows, done = [(0, *resident(pid))], 0
    while done < REQUESTS:
        last = load(address, "images-ids", 10)
        assert last["errors"] == 0, last
        done += last["requests"]
        rows.append((done, *resident(pid)))
    return rows


def theirs(*folder):
    address = "http://127.0.0.1:18402"
    with running([sys.executable, here / "peer.py", "serve", room, "18402", *folder], address):
        return recall_of(address, 0), loads(address)


made = json.loads((room / "clip-retrieval" / "image.json").read_text())
peer_recall, peer = theirs()
print(f"clip_back as made, {made['index_param']}: recall {peer_recall}", json.dumps(peer), flush=True)
with ours(0.95) as pid:
    default_recall, default = recall_of("http://127.0.0.1:18401", 1), loads("http://127.0.0.1:18401")
    print(f"tintype by default: recall {default_recall}", json.dumps(default), flush=True)
    remembered = memory(pid, "http://127.0.0.1:18401")
# clip_back made to find as much as tintype does by default, and tintype made to find as much as clip_back does as made.
tune = [sys.executable, here / "peer.py", "tune", room, vectors, str(default_recall)]
width, _ = subprocess.run(tune, capture_output=True, text=True, check=True).stdout.split()
tuned_recall, tuned = theirs("clip-retrieval-tuned")
print(f"clip_back with efSearch={width}: recall {tuned_recall}", json.dumps(tuned), flush=True)
for asked in (0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99, 1.0):
    with ours(asked):
        equal_recall = recall_of("http://127.0.0.1:18401", 1)
        if equal_recall >= peer_recall or asked == 1.0:
            equal = loads("http://127.0.0.1:18401")
            break
print(f"tintype --recall {asked}: recall {equal_recall}", json.dumps(equal), flush=True)


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
`benches/compare/serve/run {Path(vectors).name} {seconds}`: `wrk -t1 -c64 -d{seconds}s` for ids, a third of that with metadata.

100,000 vectors, 1,203 texts as queries, 64 connections. Two comparisons, each at equal recall of the ten nearest to a text: clip_back with
the index as clip_index made it here ({made['index_param']}: autofaiss takes what it finds within 10 ms, so a faster machine gives a
slower and better index), and tintype as it is by default.

| requests | clip_back as made: recall {peer_recall:.3f} | tintype `--recall {asked}`: {equal_recall:.3f} | clip_back, efSearch={width}: {tuned_recall:.3f} | tintype by default: {default_recall:.3f} |
|---|---|---|---|---|
"""
    + "\n".join(row(kind) for kind in KINDS)
    + f"""

Memory of tintype over {remembered[-1][0]:,} requests, in MB:

| requests | resident | its own |
|---|---|---|
"""
    + "\n".join(f"| {done:,} | {all_:.0f} | {own:.1f} |" for done, all_, own in shown)
    + "\n"
)
print(report.read_text())
