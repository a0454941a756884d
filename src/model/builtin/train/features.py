"""Step 3: caches what the frozen part of MobileNetV2 makes of every picture, in WORK/features.

For each set and view: SET_vVIEW_map.npy (n, 160, 7, 7) and SET_vVIEW_pool.npy (n, 1280), both f16. View 0 is the whole
picture squashed to 224 x 224, as the engine does it; others are random crops. paths.json lists the pictures of each set.
"""
import glob
import json
import math
import multiprocessing
import os
import random

import numpy as np
from PIL import Image

from data import arguments, cc3m, flickr_split


def sets(data):
    """Name to paths."""
    train, dev, test = flickr_split(data)
    rng = random.Random(0)
    nette = sorted(glob.glob(f"{data}/imagenette/val/*/*"))
    rng.shuffle(nette)
    caltech = []
    for folder in sorted(glob.glob(f"{data}/caltech101/101_ObjectCategories/*")):
        pictures = sorted(glob.glob(f"{folder}/*.jpg"))
        if not folder.endswith("BACKGROUND_Google"):
            rng.shuffle(pictures)
            caltech += pictures[:20]
    return {
        "flickr_dev": [path for path, _ in dev], "flickr_test": [path for path, _ in test],
        "imagenet": sorted(glob.glob(f"{data}/imagenet-sample-images/*.JPEG")),
        "imagenette": nette[:1000], "caltech": caltech,
        "flickr_train": [path for path, _ in train], "cc3m": [path for path, _ in cc3m(data)],
    }


def view(picture, number, key):
    """View `number` of a picture; random, but the same for the same key."""
    if number == 0:
        return picture.resize((224, 224), Image.BILINEAR)
    rng, (width, height) = random.Random(f"{key}-{number}"), picture.size
    for _ in range(10):
        area = rng.uniform(0.45, 1.0) * width * height
        ratio = math.exp(rng.uniform(math.log(0.75), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if w <= width and h <= height:
            break
    else:
        w, h = width, height
    x, y = rng.randint(0, width - w), rng.randint(0, height - h)
    picture = picture.resize((224, 224), Image.BILINEAR, box=(x, y, x + w, y + h))
    return picture.transpose(Image.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else picture


def pixels(picture):
    """(3, 224, 224) in -1..1."""
    return np.asarray(picture, np.float32).transpose(2, 0, 1) / 127.5 - 1


def extract(job):
    """One process's share of every set."""
    import onnxruntime

    work, part, parts, jobs = job
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(f"{work}/mobilenet.onnx", options, providers=["CPUExecutionProvider"])
    for name, number, paths in jobs:
        maps, pools = (np.lib.format.open_memmap(f"{work}/features/{name}_v{number}_{kind}.npy", mode="r+")
                       for kind in ("map", "pool"))
        end = len(paths) * (part + 1) // parts
        for start in range(len(paths) * part // parts, end, 16):
            batch = paths[start:min(start + 16, end)]
            x = np.stack([pixels(view(Image.open(p).convert("RGB"), number, os.path.basename(p))) for p in batch])
            maps[start:start + len(x)], pools[start:start + len(x)] = session.run(["map", "pool"], {"x": x})


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    os.makedirs(f"{args.work}/features", exist_ok=True)
    every = sets(args.data)
    json.dump(every, open(f"{args.work}/features/paths.json", "w"))
    jobs = [(name, 0, paths) for name, paths in every.items()] + [(n, 1, every[n]) for n in ("flickr_train", "cc3m")]
    for name, number, paths in jobs:
        for kind, shape in (("map", (160, 7, 7)), ("pool", (1280,))):
            np.lib.format.open_memmap(f"{args.work}/features/{name}_v{number}_{kind}.npy", mode="w+", dtype=np.float16,
                                      shape=(len(paths), *shape))
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        pool.map(extract, [(args.work, i, args.processes, jobs) for i in range(args.processes)], chunksize=1)
