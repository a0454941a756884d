"""Data sets, captions, prompts and retrieval scores. Every script takes the same three folders.

--data holds, as they are distributed:
    flickr8k/images/*.jpg, flickr8k/Flickr8k.token.txt
    cc3m/*/*.jpg with a .txt caption beside each
    coco_captions_val2017.json
    mobilenet/tf2_mobilenet_v2_1.0_224_ptq.tflite, mobilenet/imagenet_labels.txt (Coral)
    detic/ (a clone of facebookresearch/Detic, for its class names and their CLIP text vectors)
    imagenette/val/*/*, imagenet-sample-images/*.JPEG, caltech101/101_ObjectCategories/*/*.jpg (evaluation alone)
--work is for what can be made again; --out gets the model.
"""
import argparse
import ast
import csv
import glob
import json
import os
import re

import numpy as np
import torch

TEMPLATES = [
    "{}", "a {}", "a photo of a {}", "a photo of the {}", "photo of {}", "a picture of a {}", "a close-up of a {}", "the {}",
    "a small {}", "a large {}", "one {}", "a {} in the background", "there is a {}", "my {}", "a photo of one {}",
    "a blurry photo of a {}", "an image of a {}", "some {}", "{} outdoors", "a nice {}",
]
EVALUATION_TEMPLATES = ["a photo of a {}", "a {}", "a picture of the {}"]

# Imagenette's folders: WordNet id to ImageNet class.
IMAGENETTE = dict(n01440764=0, n02102040=217, n02979186=482, n03000684=491, n03028079=497, n03394916=566, n03417042=569,
                  n03425413=571, n03445777=574, n03888257=701)


def arguments(description, **kwargs):
    """A parser that knows the three folders."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)
    parser.add_argument("--data", required=True, help="folder with the data sets")
    parser.add_argument("--work", default="work", help="folder for intermediate files")
    parser.add_argument("--out", default="out", help="folder for the model")
    return parser


def clean(caption):
    """The clean-up of every caption and query."""
    caption = re.sub(r"\s+([.,;:!?])", r"\1", caption.strip().lower())
    return re.sub(r"\s+", " ", caption).rstrip(" .")


def flickr_split(data):
    """Training, development (500) and test (1,000, the last names) lists of (path, captions)."""
    names = sorted(os.path.basename(path) for path in glob.glob(f"{data}/flickr8k/images/*.jpg"))
    assert len(names) == 8091, len(names)
    captions = {}
    for line in open(f"{data}/flickr8k/Flickr8k.token.txt", encoding="utf-8"):
        key, caption = line.rstrip("\n").split("\t")
        captions.setdefault(key.split("#")[0], []).append(caption.strip())
    pairs = lambda part: [(f"{data}/flickr8k/images/{name}", captions[name]) for name in part if name in captions]
    return pairs(names[:-1500]), pairs(names[-1500:-1000]), pairs(names[-1000:])


def cc3m(data):
    """(path, [caption]) of the CC3M subset."""
    pictures = sorted(glob.glob(f"{data}/cc3m/*/*.jpg"))
    return [(p, [open(p[:-4] + ".txt", encoding="utf-8").read().strip()]) for p in pictures if os.path.exists(p[:-4] + ".txt")]


def coco_captions(data):
    """Captions of COCO val2017, grouped by picture."""
    groups = {}
    for annotation in json.load(open(f"{data}/coco_captions_val2017.json"))["annotations"]:
        groups.setdefault(annotation["image_id"], []).append(annotation["caption"].strip())
    return [captions for _, captions in sorted(groups.items())]


def imagenet_names(data):
    """1,000 lists: open_clip's name of the class first, then the synonyms of imagenet_labels.txt."""
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    labels = [line.strip() for line in open(f"{data}/mobilenet/imagenet_labels.txt", encoding="utf-8")][1:1001]
    return [list(dict.fromkeys([name.lower()] + [s.strip().lower() for s in label.split(",")]))
            for name, label in zip(IMAGENET_CLASSNAMES, labels)]


def clip_names(data):
    """Class names of LVIS, OpenImages and Objects365, and their centred unit CLIP ViT-B/32 text vectors, both from Detic."""
    metadata = f"{data}/detic/datasets/metadata"
    categories = sorted(json.load(open(f"{metadata}/lvis_v1_train_cat_info.json")), key=lambda c: c["id"])
    names = [re.sub(r"[()]", "", c["synonyms"][0].replace("_", " ").lower()).strip() for c in categories]
    vectors = [np.load(f"{metadata}/lvis_v1_clip_a+cname.npy").astype(np.float32)]
    source = open(f"{data}/detic/detic/data/datasets/oid.py").read()
    dictionaries = re.findall(r"^\s*(\{'id': \d+, 'name': .*?\}),?\s*$", source, re.M)
    oid = [d["name"] for d in map(ast.literal_eval, dictionaries) if "freebase_id" in d]
    rows = csv.reader(open(f"{metadata}/Objects365_names_fix.csv", encoding="utf-8"))
    o365 = [row[2].replace("/", " or ") for row in rows if len(row) >= 3]
    for found, file in ((oid, "oid_clip_a+cname.npy"), (o365, "o365_clip_a+cnamefix.npy")):
        more = np.load(f"{metadata}/{file}").astype(np.float32)
        assert len(found) == len(more), (file, len(found), len(more))
        names += [name.lower() for name in found]
        vectors.append(more)
    v = np.concatenate(vectors)
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    v -= v.mean(0)
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    return names, v


def load_tokenizer(out):
    from tokenizers import Tokenizer

    return Tokenizer.from_file(f"{out}/tokenizer.json")


class Words:
    """Captions as lists of ids per word, so that augmentation drops whole words."""

    def __init__(self, tokenizer):
        self.tokenizer, self.cache = tokenizer, {}

    def add(self, captions):
        captions = [c for c in dict.fromkeys(captions) if c not in self.cache]
        words = sorted({w for c in captions for w in c.split()})
        ids = {w: e.ids for w, e in zip(words, self.tokenizer.encode_batch(words))}
        for caption in captions:
            self.cache[caption] = [ids[w] for w in caption.split()]

    def augmented(self, caption, rng, drop=0.1, span=0.15, limit=28):
        """Sometimes a span of the caption, usually with a word or two missing."""
        words = self.cache[caption]
        if len(words) > 4 and rng.random() < span:
            length = rng.randint(2, max(2, len(words) - 1))
            start = rng.randint(0, len(words) - length)
            words = words[start:start + length]
        if len(words) > 3 and drop:
            words = [w for w in words if rng.random() > drop] or words
        return [i for w in words for i in w][:limit] or [1]

    def plain(self, caption, limit=32):
        return [i for w in self.cache[caption] for i in w][:limit]


def padded(id_lists):
    """(texts, longest) int64, 0 is padding."""
    ids = np.zeros((len(id_lists), max(1, max(map(len, id_lists)))), np.int64)
    for row, these in zip(ids, id_lists):
        row[:len(these)] = these
    return torch.from_numpy(ids)


def run_text(text, id_lists, chunk=384):
    """The text tower over lists of ids, sorted by length so that little is padded."""
    order = sorted(range(len(id_lists)), key=lambda i: len(id_lists[i]))
    rows = [text(padded([id_lists[i] for i in order[s:s + chunk]])) for s in range(0, len(order), chunk)]
    inverse = torch.empty(len(order), dtype=torch.long)
    inverse[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(rows)[inverse]


def retrieval(images, texts, owner):
    """Recall in % between images (n, d) and texts (m, d), where text j belongs to image owner[j]."""
    scores = texts @ images.T
    ranks = (scores > scores[torch.arange(len(texts)), owner][:, None]).sum(1)
    out = {f"t2i_R@{k}": round(100 * (ranks < k).float().mean().item(), 2) for k in (1, 5, 10)}
    out["t2i_median_rank"] = int(ranks.median().item()) + 1
    text_ranks = scores.T.argsort(1, descending=True).argsort(1)
    best = torch.full((len(images),), 10**9)
    for text, image in enumerate(owner.tolist()):
        best[image] = min(best[image], int(text_ranks[image, text]))
    out.update({f"i2t_R@{k}": round(100 * (best < k).float().mean().item(), 2) for k in (1, 5, 10)})
    return out
