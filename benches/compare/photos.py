"""Whole runs of `tintype index` beside rclip's pipeline, on the same photos, model and two processors, taking turns.

    python photos.py --model DIR --onnx image.onnx --camera DIR --small DIR --tintype plain=PATH --tintype fast=PATH
    python photos.py --model DIR --camera DIR --enlarge 24 --count 2000 --tintype fast=PATH      memory: tintype alone

DIR of --model is an open_clip directory of ViT-B/32 at 256 pixels, image.onnx its image tower (any weights: time does not depend on
them). --camera is a folder of photos: those of eight megapixels and more are repeated to 300 files of distinct content, enlarged
before that if asked. The processor time of the whole process is the measure, because other work may share the machine; wall time
stands beside it, and how much of the processors was used; then the most memory that the process had. Medians over rounds. A pipeline
that does not take in every file ends the run.
"""
import argparse, datetime, io, json, math, os, platform, shutil, statistics, subprocess, sys, tempfile, time
from importlib.metadata import version
from multiprocessing import Process
from pathlib import Path

HERE = Path(__file__).parent


def camera(source, target, count, enlarge):
    """Large photos, repeated; a few bytes behind the end of each make it a file of its own."""
    from PIL import Image

    large = []
    for path in sorted(Path(source).iterdir()):
        try:
            with Image.open(path) as image:
                if image.format == "JPEG" and image.width * image.height >= 8e6:
                    image.load()
                    large.append(enlarged(image, enlarge) if enlarge else path.read_bytes())
        except Exception:  # noqa: BLE001 (broken ones are not what is measured)
            continue
    for n in range(count):
        (target / f"{n:05}.jpg").write_bytes(large[n % len(large)] + b"\xff\xd9%06d\xff\xd9" % n)


def enlarged(image, megapixels):
    """The photo with so many pixels, in one scan or several as it was."""
    scale = math.sqrt(megapixels * 1e6 / (image.width * image.height))
    several, profile = "progressive" in image.info, {key: image.info[key] for key in ("exif", "icc_profile") if key in image.info}
    image = image.convert("RGB").resize((round(image.width * scale), round(image.height * scale)))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=92, progressive=several, **profile)
    return out.getvalue()


def apart(work, *arguments):
    """Runs in a process of its own: a child's peak of memory is never told as less than its parent had."""
    process = Process(target=work, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(process.exitcode)


def timed(command, cpus):
    """Wall and processor seconds, the peak of memory in MB, and what was printed."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        child = subprocess.Popen(["taskset", "-c", cpus, *map(str, command)], stdout=out, stderr=err)
        _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        if child.returncode:
            sys.exit(f"{command}: {child.returncode}: {err.read().decode()}")
        return wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3, out.read().decode()


def rclip(options, folder):
    wall, processor, peak, out = timed([sys.executable, HERE / "rclip_pipeline.py", options.onnx, folder], options.cpus)
    inner = json.loads(out)
    # Without the imports and the loading of the model.
    return inner["files"], (inner["wall"], inner["processor"], peak)


def tintype(options, program, folder, library):
    shutil.rmtree(library, ignore_errors=True)
    program = [program, "--library", library]
    command = [*program, "--model", options.model, "index", *options.options.split(), folder]
    wall, processor, peak, _ = timed(command, options.cpus)
    status = subprocess.run([*program, "status", "--json"], check=True, capture_output=True)
    return json.loads(status.stdout)["photos"], (wall, processor, peak)


def conditions(options):
    revision = subprocess.run(["git", "-C", HERE, "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    names = [name for name in ("Pillow", "onnxruntime", "numpy") if options.onnx]
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    print(f"{datetime.date.today()}, tintype {revision}, {processor}, Python {platform.python_version()}, {versions}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--onnx", help="without it tintype runs alone")
    parser.add_argument("--camera")
    parser.add_argument("--enlarge", type=float, help="megapixels that the camera photos get first")
    parser.add_argument("--small")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--tintype", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--options", default="", help="further options of `tintype index`, such as '--precision int8'")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpus", default="0,1")
    options = parser.parse_args()
    conditions(options)
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        sets = {}
        if options.camera:
            (work / "camera").mkdir()
            apart(camera, options.camera, work / "camera", options.count, options.enlarge)
            sets["camera files" + (f" of {options.enlarge:g} megapixels" if options.enlarge else "")] = work / "camera"
        if options.small:
            sets["small photos"] = Path(options.small)
        for label, folder in sets.items():
            count = sum(1 for path in folder.rglob("*.*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
            pipelines = {"rclip's pipeline": lambda: rclip(options, folder)} if options.onnx else {}
            for name, path in (named.split("=", 1) for named in options.tintype):
                pipelines[f"tintype, {name}"] = lambda path=path: tintype(options, path, folder, work / "library")
            runs = {name: [] for name in pipelines}
            for _ in range(options.rounds):
                for name, run in pipelines.items():
                    taken, measured = run()
                    if taken != count:
                        sys.exit(f"{name}: {taken} of {count} files taken in")
                    runs[name].append(measured)
            print(f"{label}: {count} files, medians of {options.rounds} rounds on processors {options.cpus}")
            first = None
            for name, times in runs.items():
                wall, processor, peak = (statistics.median(column) for column in zip(*times))
                first = first or (wall, processor)
                print(
                    f"  {name:<20} {wall:7.1f} s wall {processor:7.1f} s processor {processor / count * 1e3:7.1f} ms a file"
                    f" {processor / wall / len(options.cpus.split(',')) * 100:4.0f} % busy {peak:6.0f} MB"
                    f"  {first[0] / wall:5.2f} x wall {first[1] / processor:5.2f} x processor"
                )


if __name__ == "__main__":
    main()
