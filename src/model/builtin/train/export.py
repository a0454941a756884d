"""Step 6: a checkpoint to OUT/model_f32.safetensors and OUT/model_int8.safetensors (the one that ships), and golden.json."""
import json

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from data import arguments, clean, load_tokenizer, padded
from model import FEATURES, ImageHead, TextTower, Trunk, dequantised, flattened, quantised


def build(weights, heads=6):
    """Dequantised weights to (text, head, trunk) in evaluation mode."""
    vocab, width = weights["text.emb.weight"].shape
    layers = len({name.split(".")[2] for name in weights if name.startswith("text.blocks.")})
    dim, hidden = weights["image.proj.fc2.weight"].shape
    mlp = weights["text.blocks.0.fc1.weight"].shape[0] // width
    text = TextTower(vocab, width, layers, heads, mlp, len(weights["text.pos"]), dim)
    head, trunk = ImageHead(dim, hidden, FEATURES), Trunk()
    part = lambda prefix: {k[len(prefix):]: v for k, v in weights.items() if k.startswith(prefix)}
    text.load_state_dict(part("text."))
    head.load_state_dict(part("image.proj."))
    trunk.load_numpy({k: v.numpy() for k, v in part("image.").items() if not k.startswith("proj.")})
    return text.eval(), head.eval(), trunk.eval()


def golden_picture():
    """A made-up picture (224, 224, 3) that tests can make too."""
    y, x, c = np.meshgrid(np.arange(224), np.arange(224), np.arange(3), indexing="ij")
    return ((x * 7 + y * 13 + c * 29 + (x * y) // 64) % 256).astype(np.uint8)


@torch.no_grad()
def golden(path, tokenizer):
    """What the int8 file gives in f32 arithmetic for the made-up picture and a few texts."""
    text, head, trunk = build(dequantised(load_file(path)))
    x = torch.from_numpy(golden_picture().astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
    out = dict(image=dict(embedding=head(trunk(x).mean((2, 3)))[0].tolist()), texts=[])
    for words in ("a photo of a dog", "two children playing on the beach", "golden retriever", "Snow-covered mountains at sunset!"):
        ids = tokenizer.encode(clean(words)).ids
        out["texts"].append(dict(text=words, ids=ids, embedding=text(padded([ids]))[0].tolist()))
    return out


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("checkpoint")
    args = parser.parse_args()
    checkpoint = torch.load(args.checkpoint, weights_only=False)
    text, head = TextTower(**checkpoint["text_config"]), ImageHead(**checkpoint["image_config"])
    text.load_state_dict(checkpoint["text"])
    head.load_state_dict(checkpoint["head"])
    trunk = Trunk().load_numpy(np.load(f"{args.work}/mobilenet.npz"))
    if checkpoint["trunk"]:
        trunk.load_state_dict(checkpoint["trunk"])
    weights = flattened(text, head, trunk, checkpoint["scales"][0])
    save_file(weights, f"{args.out}/model_f32.safetensors")
    save_file(quantised(weights), f"{args.out}/model_int8.safetensors")
    with open(f"{args.out}/golden.json", "w") as out:
        json.dump(golden(f"{args.out}/model_int8.safetensors", load_tokenizer(args.out)), out)
