"""Whole runs of `tintype index` beside rclip's pipeline, on the same photos, model and two processors, taking turns.

    python photos.py --model DIR --onnx image.onnx --camera DIR --small DIR --tintype plain=PATH --tintype fast=PATH

DIR of --model is an open_clip directory of ViT-B/32 at 256 pixels, image.onnx its image tower (any weights: time does not depend on
them). --camera is a folder of photos: those of eight megapixels and more are repeated to 300 files of distinct content. The processor
time of the whole process is the measure, because other work may share the machine; wall time stands beside it. Medians over rounds.
"""
import argparse, json, os, resource, shutil, statistics, subprocess, sys, tempfile, time
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent


def camera(source, target, count):
    """Large photos, repeated; a few bytes behind the end of each make it a file of its own."""
    large = []
    for path in sorted(Path(source).iterdir()):
        try:
            with Image.open(path) as image:
                if image.format == "JPEG" and image.width * image.height >= 8e6:
                    image.load()
                    large.append(path)
        except Exception:  # noqa: BLE001 (broken ones are not what is measured)
            continue
    for n in range(count):
        data = large[n % len(large)].read_bytes()
        (target / f"{n:04}.jpg").write_bytes(data + b"\xff\xd9%06d\xff\xd9" % n)
    return len(large)


def timed(command, cpus):
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(["taskset", "-c", cpus, *map(str, command)], capture_output=True, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 1):
        sys.exit(f"{command}: {done.stderr}")
    return wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--onnx", required=True)
    parser.add_argument("--camera")
    parser.add_argument("--small")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--tintype", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--options", default="", help="further options of `tintype index`, such as '--precision int8'")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpus", default="0,1")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        sets = {}
        if options.camera:
            (work / "camera").mkdir()
            distinct = camera(options.camera, work / "camera", options.count)
            sets[f"camera, {distinct} photos repeated to {options.count}"] = work / "camera"
        if options.small:
            sets["small photos"] = Path(options.small)
        for label, folder in sets.items():
            count = sum(1 for path in folder.rglob("*") if path.is_file())
            runs = {}
            for _ in range(options.rounds):
                wall, processor, out = timed([sys.executable, HERE / "rclip_pipeline.py", options.onnx, folder], options.cpus)
                inner = json.loads(out)
                # Without the imports and the loading of the model.
                runs.setdefault("rclip's pipeline", []).append((inner["wall"], inner["processor"]))
                for named in options.tintype:
                    name, path = named.split("=", 1)
                    library = work / "library"
                    shutil.rmtree(library, ignore_errors=True)
                    command = [path, "--library", library, "--model", options.model, "index", *options.options.split(), folder]
                    wall, processor, _ = timed(command, options.cpus)
                    runs.setdefault(f"tintype, {name}", []).append((wall, processor))
            print(f"{label}: {count} files, medians of {options.rounds} rounds on processors {options.cpus}")
            first = None
            for name, times in runs.items():
                wall, processor = (statistics.median(column) for column in zip(*times))
                first = first or (wall, processor)
                print(
                    f"  {name:<20} {wall:7.1f} s wall {processor:7.1f} s processor {processor / count * 1e3:7.1f} ms a file"
                    f"  {first[0] / wall:5.2f} x wall {first[1] / processor:5.2f} x processor"
                )


if __name__ == "__main__":
    main()
