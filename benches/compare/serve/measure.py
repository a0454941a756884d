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
    return {kind: load(address, kind) for kind in KINDS}


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


with running([sys.executable, here / "peer.py", "serve", room, "18402"], "http://127.0.0.1:18402"):
    peer_recall = recall_of("http://127.0.0.1:18402", 0)
    peer = loads("http://127.0.0.1:18402")
print(f"clip_back: recall {peer_recall}", json.dumps(peer), flush=True)
# The least that is asked of our index so that it finds no less than clip_back does.
for asked in (0.8, 0.83, 0.85, 0.87, 0.9, 0.93, 0.95):
    with ours(asked):
        found = recall_of("http://127.0.0.1:18401", 1)
        if found < peer_recall:
            continue
        equal = (asked, found, loads("http://127.0.0.1:18401"))
        break
print("tintype at the recall of clip_back:", json.dumps(equal), flush=True)
with ours(0.95) as pid:
    default = (0.95, recall_of("http://127.0.0.1:18401", 1), loads("http://127.0.0.1:18401"))
    print("tintype as it is by default:", json.dumps(default), flush=True)
    remembered = memory(pid, "http://127.0.0.1:18401")


def cell(result):
    errors = f", **{result['errors']} errors**" if result["errors"] else ""
    return f"{result['per_second']:,.0f}/s, p50 {result['p50_ms']:.1f} ms, p99 {result['p99_ms']:.1f} ms{errors}"


def row(kind):
    a, b, c = equal[2][kind], default[2][kind], peer[kind]
    ratio = lambda ours: f"**{ours['per_second'] / c['per_second']:.1f} ×**"
    return f"| {KINDS[kind]} | {cell(c)} | {cell(a)}: {ratio(a)} | {cell(b)}: {ratio(b)} |"


commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
# Every tenth of the way, not every line.
shown = remembered[:: max(1, len(remembered) // 10)] + [remembered[-1]] * ((len(remembered) - 1) % max(1, len(remembered) // 10) > 0)
report.write_text(
    f"""# Measured on {date.today()}

{model[1] if model else "a processor"}, {os.cpu_count()} cores shared by server and load; load average {os.getloadavg()[0]:.1f} at the end; commit {commit}.
`benches/compare/serve/run {Path(vectors).name} {seconds}`: `wrk -t1 -c64 -d{seconds}s` for each cell.

100,000 vectors, 1,203 queries; recall of the ten nearest over the texts: clip_back {peer_recall:.3f}, tintype {equal[1]:.3f} with `--recall
{equal[0]}`, {default[1]:.3f} by default.

| requests | clip_back | tintype `--recall {equal[0]}` | tintype by default |
|---|---|---|---|
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
