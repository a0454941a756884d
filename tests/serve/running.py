"""A library of made-up pictures, and a server of it."""

import re
import subprocess
from contextlib import contextmanager
from pathlib import Path

COLOURS = {"red": (210, 30, 30), "green": (30, 160, 40), "blue": (30, 50, 200), "yellow": (230, 210, 40), "grey": (128, 128, 128)}


def make_photos(folder: Path, count: int) -> None:
    """Pictures of every colour and shape, as PPM: no library is needed to write it."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(COLOURS)
    for number in range(count):
        name = names[number % len(names)]
        width, height = [(48, 32), (32, 48), (40, 40), (96, 32)][number // len(names) % 4]
        red, green, blue = COLOURS[name]
        rows = bytearray()
        for y in range(height):
            for x in range(width):
                shade = 0.55 + 0.45 * ((x * (number % 7 + 1) // 8 + y // 8) % 2)
                rows += bytes((int(red * shade), int(green * shade), (int(blue * shade) + number * 5) % 256))
        (folder / f"{name} {number}.ppm").write_bytes(b"P6 %d %d 255\n" % (width, height) + rows)


def index(program: Path, library: Path, *folders: Path) -> None:
    subprocess.run([program, "--library", library, "--quiet", "index", *folders], check=True)


@contextmanager
def served(program: Path, *arguments: str):
    """Runs the server on a free port of this machine; gives its address and process."""
    command = [program, "serve", "--listen", "127.0.0.1:0", *map(str, arguments)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        said = server.stderr.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", said)
        assert address, f"the server said: {said}{server.stderr.read() if server.poll() is not None else ''}"
        yield address.group(), server
    finally:
        server.terminate()
        assert server.wait(timeout=30) == 0, server.stderr.read()
