"""Packs the merges of a byte-level BPE tokenizer.json into the table that the engine searches without building anything.

Records of three little-endian u16 (left id, right id, id of both joined), sorted by left and right.
"""
import argparse
import json
import struct

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("tokenizer", help="tokenizer.json")
parser.add_argument("out", help="merges.bin")
args = parser.parse_args()

model = json.load(open(args.tokenizer, encoding="utf-8"))["model"]
vocab, merges = model["vocab"], model["merges"]
records = [(vocab[left], vocab[right], vocab[left + right]) for left, right in merges]
# The engine takes the id of a merge for its rank.
assert [r[2] for r in records] == sorted(r[2] for r in records)
with open(args.out, "wb") as out:
    for record in sorted(records):
        out.write(struct.pack("<3H", *record))
