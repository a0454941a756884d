"""How rclip takes photos in, as its source does it, without its command line: the peer of photos.py.

    python rclip_pipeline.py image.onnx FOLDER     prints one line of JSON

Pillow opens and decodes (truncated files too), converts to RGB, resizes the shortest side to 256 with its bicubic filter (sizes cut
to integers), crops the centre; a pool of threads does so for the next three batches of eight while ONNX Runtime, with the threads
that it takes by default, computes the one before in f32. Vectors are normalised and written to SQLite with the path, size, time and
hash of the file's first megabyte and last kilobyte. It is given the processors that it may use by `taskset`.
"""
import hashlib, json, os, resource, sqlite3, sys, tempfile, time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
from PIL import Image, ImageFile

ImageFile.LOAD_TRUNCATED_IMAGES = True
Image.MAX_IMAGE_PIXELS = None
BATCH, AHEAD, SIZE = 8, 3, 256
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def prepare(path):
    try:
        with Image.open(path) as image:
            image = image.convert("RGB")
        width, height = image.size
        scale = SIZE / min(width, height)
        width, height = max(SIZE, int(width * scale)), max(SIZE, int(height * scale))
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - SIZE) // 2, (height - SIZE) // 2
        image = image.crop((left, top, left + SIZE, top + SIZE))
        pixels = (np.asarray(image, np.float32) / 255 - MEAN) / STD
        return path, pixels.transpose(2, 0, 1)
    except Exception:  # noqa: BLE001 (rclip says that the file is no readable image, and goes on)
        return path, None


def content(path):
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read(1 << 20))
        file.seek(max(0, os.path.getsize(path) - 1024))
        digest.update(file.read(1024))
    return digest.hexdigest()


def main(model, folder):
    options = onnxruntime.SessionOptions()
    cores = len(os.sched_getaffinity(0))
    # Its default is a thread for each core of the machine; where `taskset` leaves fewer, those.
    options.intra_op_num_threads = cores
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    paths = sorted(os.path.join(at, file) for at, _, files in os.walk(folder) for file in files)
    start, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    count, inference = 0, 0.0
    with tempfile.TemporaryDirectory() as work, ThreadPoolExecutor(min(16, cores)) as pool:
        database = sqlite3.connect(os.path.join(work, "db.sqlite3"))
        database.execute("CREATE TABLE images (filepath TEXT UNIQUE, modified_at REAL, size INTEGER, vector BLOB, hash TEXT)")
        batches = (paths[at : at + BATCH] for at in range(0, len(paths), BATCH))
        waiting = deque()

        def feed():
            if batch := next(batches, None):
                waiting.append([pool.submit(prepare, path) for path in batch])

        for _ in range(AHEAD):
            feed()
        while waiting:
            photos = [photo for photo in (future.result() for future in waiting.popleft()) if photo[1] is not None]
            feed()
            if not photos:
                continue
            began = time.perf_counter()
            vectors = session.run(None, {name: np.stack([pixels for _, pixels in photos])})[0]
            inference += time.perf_counter() - began
            vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            for (path, _), vector in zip(photos, vectors):
                stat = os.stat(path)
                row = (path, stat.st_mtime, stat.st_size, vector.astype(np.float32).tobytes(), content(path))
                database.execute("INSERT INTO images VALUES (?, ?, ?, ?, ?)", row)
            count += len(photos)
        database.commit()
    wall, now = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    processor = now.ru_utime - used.ru_utime + now.ru_stime - used.ru_stime
    report = {"files": count, "wall": wall, "processor": processor, "inference_wall": inference, "peak_kib": now.ru_maxrss}
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:3])
