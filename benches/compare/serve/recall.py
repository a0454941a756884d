"""The share of the true ten nearest that a server finds, over the text queries, and whether each answer is whole.

usage: recall.py VECTORS BODIES ADDRESS FIRST    FIRST is the number of the first row
"""

import json
import sys
from pathlib import Path

import numpy as np
import requests

vectors, bodies, address, first = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
truth = np.load(vectors / "text-gt-top100-u32.npy")
session, found, total = requests.Session(), 0, 0
for line, near in zip(open(bodies), truth):
    answer = session.post(f"{address}/knn-service", data=line.strip().encode()).json()
    assert len(answer) == json.loads(line)["num_result_ids"], answer
    found += len({entry["id"] - first for entry in answer[:10]} & set(near[:10].tolist()))
    total += 10
print(f"{found / total:.4f}")
