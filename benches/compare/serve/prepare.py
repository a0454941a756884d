"""Vectors as a clip-retrieval embedding folder, and request bodies for wrk.

usage: prepare.py VECTORS ROOM
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

vectors, room = Path(sys.argv[1]), Path(sys.argv[2])
folder = room / "embeddings"
images = np.load(vectors / "images-100k-f16.npy")
if not (folder / "metadata" / "metadata_0.parquet").exists():
    (folder / "img_emb").mkdir(parents=True, exist_ok=True)
    (folder / "metadata").mkdir(exist_ok=True)
    np.save(folder / "img_emb" / "img_emb_0.npy", images)
    rows = range(len(images))
    frame = pd.DataFrame({
        "caption": [f"frame {row} of the evening news" for row in rows],
        "url": [f"https://example.org/frames/{row:06}.jpg" for row in rows],
        "NSFW": ["UNLIKELY"] * len(images),
    })
    frame.to_parquet(folder / "metadata" / "metadata_0.parquet")

texts = np.load(vectors / "text-queries-1203-f32.npy")
pick = np.random.default_rng(7).choice(len(images), len(texts), replace=False)
noisy = images[pick].astype(np.float32) + np.random.default_rng(8).normal(0, 0.02, (len(texts), images.shape[1]))
noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
for name, queries in [("texts", texts), ("images", noisy)]:
    for kind, settings in [("ids", {"num_images": 0, "num_result_ids": 10}), ("full", {"num_images": 40, "num_result_ids": 40})]:
        with open(room / f"{name}-{kind}.jsonl", "w") as file:
            for query in queries:
                body = {"embedding_input": [round(float(x), 7) for x in query], "modality": "image", "indice_name": "news", **settings}
                file.write(json.dumps(body) + "\n")
