"""The share of the true nearest that a server finds, over the text queries, and whether each answer is whole.

usage: recall.py VECTORS BODIES ADDRESS FIRST NEAREST    FIRST is the number of the first row
"""

import json
import sys
from pathlib import Path

import numpy as np
import requests

vectors, bodies, address = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
first, nearest = int(sys.argv[4]), int(sys.argv[5])
truth = np.load(vectors / "text-gt-top100-u32.npy")
session, found, total = requests.Session(), 0, 0
for line, near in zip(open(bodies), truth):
    body = {**json.loads(line), "num_result_ids": nearest}
    answer = session.post(f"{address}/knn-service", data=json.dumps(body).encode()).json()
    assert len(answer) == nearest, answer
    found += len({entry["id"] - first for entry in answer} & set(near[:nearest].tolist()))
    total += nearest
print(f"{found / total:.4f}")
