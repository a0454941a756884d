"""Memory of a server over many requests.

usage: memory.py PID ADDRESS BODIES COUNT
"""

import re
import subprocess
import sys
from pathlib import Path

pid, address, bodies, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
here = Path(__file__).parent


def resident() -> tuple[int, int]:
    text = Path(f"/proc/{pid}/status").read_text()
    return tuple(int(re.search(rf"{name}:\s+(\d+)", text)[1]) >> 10 for name in ("VmRSS", "RssAnon"))


done, step = 0, 0
print(f"{done:>8} requests: {resident()[0]} MB resident, {resident()[1]} MB of them its own")
while done < count:
    said = subprocess.run(
        ["wrk", "-t2", "-c64", "-d10s", "-s", here / "load.lua", address, "--", bodies], capture_output=True, text=True, check=True
    ).stdout
    last = eval(said.strip().splitlines()[-1])
    done += last["requests"]
    assert last["errors"] == 0, last
    print(f"{done:>8} requests: {resident()[0]} MB resident, {resident()[1]} MB of them its own", flush=True)
