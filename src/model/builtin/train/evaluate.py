"""Step 7: held-out retrieval and classification of the exported files, as JSON on stdout."""
import json

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from data import EVALUATION_TEMPLATES, arguments, clean, flickr_split, imagenet_names, load_tokenizer, retrieval, run_text
from export import build
from model import dequantised

# Caltech-101's folders whose names are no words.
CALTECH = {
    "Faces": "face", "Faces_easy": "face", "Leopards": "leopard", "Motorbikes": "motorbike", "airplanes": "airplane",
    "bass": "bass fish", "car_side": "car", "cellphone": "cell phone", "cougar_body": "cougar", "cougar_face": "cougar face",
    "crocodile_head": "crocodile head", "flamingo_head": "flamingo head", "water_lilly": "water lily",
    "hawksbill": "hawksbill turtle", "ketch": "ketch sailboat", "schooner": "schooner sailing ship",
    "snoopy": "snoopy cartoon dog", "garfield": "garfield cartoon cat", "brontosaurus": "brontosaurus dinosaur",
    "stegosaurus": "stegosaurus dinosaur", "minaret": "minaret tower", "yin_yang": "yin yang symbol", "ibis": "ibis bird",
    "emu": "emu bird", "tick": "tick insect",
}


@torch.no_grad()
def evaluate(args, weights):
    text, head, trunk = build(weights)
    tokenizer = load_tokenizer(args.out)

    def images(name):
        maps = np.load(f"{args.work}/features/{name}_v0_map.npy", mmap_mode="r")
        parts = [torch.from_numpy(maps[i:i + 100].astype(np.float32)) for i in range(0, len(maps), 100)]
        return torch.cat([head(trunk.upper(part).mean((2, 3))) for part in parts])

    texts = lambda lines: run_text(text, [e.ids[:32] for e in tokenizer.encode_batch([clean(line) for line in lines])])
    prompted = lambda names: F.normalize(
        torch.stack([texts([t.format(name) for name in names]) for t in EVALUATION_TEMPLATES]).mean(0), dim=-1)

    def accuracy(scores, labels):
        top = scores.topk(5, 1).indices
        percent = lambda hits: round(100 * hits.float().mean().item(), 2)
        return dict(top1=percent(top[:, 0] == labels), top5=percent((top == labels[:, None]).any(1)))

    out = {}
    _, dev, test = flickr_split(args.data)
    for name, pairs in (("flickr_dev", dev), ("flickr_test", test)):
        owner = torch.tensor([i for i, (_, captions) in enumerate(pairs) for _ in captions])
        out[name] = retrieval(images(name), texts([c for _, captions in pairs for c in captions]), owner)
    names, labels = [synonyms[0] for synonyms in imagenet_names(args.data)], torch.arange(1000)
    pictures, classes = images("imagenet"), prompted(names)
    out["imagenet"] = accuracy(pictures @ classes.T, labels)
    out["imagenet_retrieval"] = {k: v for k, v in retrieval(pictures, classes, labels).items() if k.startswith("t2i")}
    paths = json.load(open(f"{args.work}/features/paths.json"))["caltech"]
    of_picture = [CALTECH.get(p.split("/")[-2], p.split("/")[-2].replace("_", " ")) for p in paths]
    names = sorted(set(of_picture))
    labels = torch.tensor([names.index(name) for name in of_picture])
    out["caltech"] = accuracy(images("caltech") @ prompted(names).T, labels)
    return out


if __name__ == "__main__":
    args = arguments(__doc__).parse_args()
    weights = {name: dequantised(load_file(f"{args.out}/model_{name}.safetensors")) for name in ("f32", "int8")}
    print(json.dumps({name: evaluate(args, tensors) for name, tensors in weights.items()}, indent=1))
