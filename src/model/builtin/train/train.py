"""Steps 4 and 5: trains text tower and image head on cached features, then also the last blocks of MobileNetV2.

    python train.py --data D --phase 1 --minutes 16 --save work/phase1.pt
    python train.py --data D --phase 2 --minutes 16 --init work/phase1.pt --save work/phase2.pt

A cosine schedule over the given minutes. Losses: contrastive over pictures and captions; class prompts against features that
are moved towards a class of the MobileNetV2 classifier ("synthetic"), against its predictions on real pictures
(distillation), and for generic words; the similarity of class names in CLIP's text space; two captions of one COCO picture.
Phase 2 keeps the trained trunk near the original one (anchor). The saved weights are a moving average.
"""
import copy
import json
import math
import random
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from data import (EVALUATION_TEMPLATES, IMAGENETTE, TEMPLATES, Words, arguments, cc3m, clean, clip_names, coco_captions,
                  flickr_split, imagenet_names, load_tokenizer, retrieval, run_text)
from generic_words import table
from model import SPLIT, ImageHead, TextTower, Trunk

# How many of each a batch takes.
COCO_PAIRS, CLIP_NAMES, SYNTHETIC_PER_WORD = 160, 256, 4


def options():
    parser = arguments(__doc__)
    add = parser.add_argument
    add("--phase", type=int, choices=(1, 2), default=1)
    add("--minutes", type=float, default=16)
    add("--init", help="checkpoint to start from")
    add("--save", required=True, help="checkpoint to write")
    add("--width", type=int, default=192)
    add("--layers", type=int, default=2)
    add("--mlp", type=int, default=2)
    add("--heads", type=int, default=6)
    add("--hidden", type=int, default=512)
    add("--dim", type=int, default=256)
    add("--text-dropout", type=float, default=0.1)
    add("--image-dropout", type=float, default=0.1)
    add("--flickr", type=int, default=320, help="Flickr8k pictures in a batch")
    add("--cc3m", type=int, default=704, help="CC3M pictures in a batch")
    add("--classes", type=int, default=256, help="class prompts in a batch")
    add("--words", type=int, default=48, help="generic words in a batch")
    add("--synthetic", type=int, default=512, help="synthetic features in a batch")
    add("--lr", type=float, default=2e-3)
    add("--trunk-lr", type=float, default=1e-4)
    add("--decay", type=float, default=0.1)
    add("--weight-synthetic", type=float, default=0.5)
    add("--weight-distil", type=float, default=0.5)
    add("--weight-names", type=float, default=0.25)
    add("--weight-captions", type=float, default=0.25)
    add("--weight-words", type=float, default=0.4)
    add("--weight-anchor", type=float, default=1.0)
    add("--views", type=int, default=2)
    add("--average", type=float, default=0.98, help="decay of the moving average of the weights")
    add("--bf16", action="store_true", help="bf16 autocast")
    add("--threads", type=int, default=2)
    add("--seed", type=int, default=0)
    return parser.parse_args()


class Cycle:
    """Indices without repetition until all had their turn."""

    def __init__(self, indices, rng):
        self.indices, self.rng, self.at = np.array(indices), rng, len(indices)

    def take(self, count):
        count = min(count, len(self.indices))
        if self.at + count > len(self.indices):
            self.rng.shuffle(self.indices)
            self.at = 0
        self.at += count
        return self.indices[self.at - count:self.at]


class Classifier:
    """MobileNetV2's own ImageNet layer as the teacher."""

    def __init__(self, arrays, features, rng):
        # Output 0 is the background.
        self.weight = torch.from_numpy(arrays["classifier.weight"][1:])
        self.bias = torch.from_numpy(arrays["classifier.bias"][1:])
        self.mean, self.rng = features.mean(0), rng
        direction = self.weight @ torch.cov(features.T)
        self.direction = direction / direction.norm(dim=1, keepdim=True)
        self.gain = self.direction @ self.weight.T

    def logits(self, features):
        return features @ self.weight.T + self.bias

    @torch.no_grad()
    def synthetic(self, base, classes):
        """Real features, moved until the logit of their class leads by a random margin."""
        uniform = lambda low, high: torch.from_numpy(self.rng.uniform(low, high, (len(classes), 1)).astype(np.float32))
        features = self.mean + uniform(0.3, 1.0) * (base - self.mean)
        logits, gain = self.logits(features), self.gain[classes]
        lead = logits - logits.gather(1, classes[:, None]) + uniform(0.5, 5.0)
        speed = gain.gather(1, classes[:, None]) - gain
        steps = torch.where(speed > 1e-3, lead / speed.clamp(min=1e-3), torch.zeros_like(lead))
        steps.scatter_(1, classes[:, None], 0.0)
        step = steps.clamp(min=0).max(1, keepdim=True).values.clamp(max=40.0)
        return (features + step * self.direction[classes]).clamp(0, 6)


class Training:
    def __init__(self, args):
        self.args = args
        self.rng, self.numpy_rng = random.Random(args.seed), np.random.default_rng(args.seed)
        self.tokenizer = load_tokenizer(args.out)
        self.load_data()
        self.build()

    def cached(self, name, view, kind):
        return np.load(f"{self.args.work}/features/{name}_v{view}_{kind}.npy")

    def load_data(self):
        args, data = self.args, self.args.data
        train, dev, _ = flickr_split(data)
        pairs = cc3m(data)
        order = np.random.default_rng(123).permutation(len(pairs))
        self.cc3m_dev, cc3m_train = order[:500], order[500:]
        self.flickr_captions = [[clean(c) for c in captions] for _, captions in train]
        self.cc3m_captions = [clean(captions[0]) for _, captions in pairs]
        self.coco = [[clean(c) for c in group] for group in coco_captions(data)]
        self.dev_captions = [clean(c) for _, captions in dev for c in captions]
        self.dev_owner = torch.tensor([i for i, (_, captions) in enumerate(dev) for _ in captions])
        self.words = Words(self.tokenizer)
        for captions in (*self.flickr_captions, self.cc3m_captions, *self.coco, self.dev_captions):
            self.words.add(captions)
        kinds = ("pool", "map") if args.phase == 2 else ("pool",)
        self.features = {(name, view, kind): self.cached(name, view, kind)
                         for name in ("flickr_train", "cc3m") for view in range(args.views) for kind in kinds}
        self.dev_features = {(name, kind): self.cached(name, 0, kind) for name in ("flickr_dev", "imagenette") for kind in kinds}
        self.names = imagenet_names(data)
        self.clip_names, vectors = clip_names(data)
        self.clip_vectors = torch.from_numpy(vectors)
        self.generic = table(data)
        self.generic_words = sorted(self.generic)
        self.members = torch.zeros(len(self.generic_words), 1000)
        for i, word in enumerate(self.generic_words):
            self.members[i, self.generic[word]] = 1.0
        paths = json.load(open(f"{args.work}/features/paths.json"))["imagenette"]
        self.imagenette_classes = [IMAGENETTE[folder] for folder in sorted(IMAGENETTE)]
        self.imagenette_labels = torch.tensor([sorted(IMAGENETTE).index(p.split("/")[-2]) for p in paths])
        self.take_flickr = Cycle(range(len(train)), self.numpy_rng)
        self.take_cc3m = Cycle(cc3m_train, self.numpy_rng)
        self.take_coco = Cycle(range(len(self.coco)), self.numpy_rng)
        self.take_name = Cycle(range(len(self.clip_names)), self.numpy_rng)
        self.mobilenet = np.load(f"{args.work}/mobilenet.npz")
        pools = [self.features["flickr_train", 0, "pool"], self.features["cc3m", 0, "pool"][cc3m_train]]
        self.all_features = torch.from_numpy(np.concatenate(pools).astype(np.float32))
        self.teacher = Classifier(self.mobilenet, self.all_features, self.numpy_rng)

    def build(self):
        args = self.args
        checkpoint = torch.load(args.init, weights_only=False) if args.init else {}
        text = checkpoint.get("text_config") or dict(vocab=self.tokenizer.get_vocab_size(), width=args.width,
                                                     layers=args.layers, heads=args.heads, mlp=args.mlp, dim=args.dim)
        image = checkpoint.get("image_config") or dict(dim=args.dim, hidden=args.hidden)
        self.text_config, self.image_config = {**text, "drop": args.text_dropout}, {**image, "drop": args.image_dropout}
        self.text, self.head = TextTower(**self.text_config), ImageHead(**self.image_config)
        # Logarithms of the scales: contrastive, class, class names, captions.
        self.scales = nn.Parameter(torch.tensor([math.log(x) for x in (14.0, 14.0, 10.0, 14.0)]))
        with torch.no_grad():
            roots = (self.all_features.clamp(min=0) + 1e-4).sqrt()
            self.head.mu.copy_(roots.mean(0))
            self.head.inv_sd.copy_(1 / (roots.std(0) + 0.05))
        self.trunk = Trunk().load_numpy(self.mobilenet).to(memory_format=torch.channels_last) if args.phase == 2 else None
        if checkpoint:
            self.text.load_state_dict(checkpoint["text"])
            self.head.load_state_dict(checkpoint["head"])
            self.scales.data.copy_(checkpoint["scales"])
            if self.trunk is not None and checkpoint["trunk"]:
                self.trunk.load_state_dict(checkpoint["trunk"])
        named = [(n, p) for module in (self.text, self.head) for n, p in module.named_parameters()]
        decayed = [p for n, p in named if p.ndim > 1 and n != "pos"]
        others = [p for n, p in named if p.ndim <= 1 or n == "pos"]
        groups = [dict(params=decayed, base=args.lr, weight_decay=args.decay),
                  dict(params=others + [self.scales], base=args.lr, weight_decay=0.0)]
        self.modules = [self.text, self.head]
        if self.trunk is not None:
            trained = [*self.trunk.blocks[SPLIT:].parameters(), *self.trunk.head.parameters()]
            self.trunk.requires_grad_(False)
            for parameter in trained:
                parameter.requires_grad_(True)
            groups.append(dict(params=trained, base=args.trunk_lr, weight_decay=0.0))
            self.modules.append(self.trunk)
        self.optimiser = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), eps=1e-8)
        self.averages = [copy.deepcopy(module).eval() for module in self.modules]

    def autocast(self):
        return torch.autocast("cpu", torch.bfloat16, enabled=self.args.bf16)

    def pooled(self, trunk, maps):
        with self.autocast():
            return trunk.upper(maps.to(memory_format=torch.channels_last)).float().mean((2, 3))

    def encode(self, prompts):
        return [e.ids[:24] for e in self.tokenizer.encode_batch([clean(p) for p in prompts])]

    def fill(self, template_count, name):
        return self.rng.choice(TEMPLATES[:template_count]).format(name)

    def losses(self):
        """Name to (weight, loss) over one batch."""
        args, rng, choice = self.args, self.rng, self.numpy_rng.choice
        flickr, cc = self.take_flickr.take(args.flickr), self.take_cc3m.take(args.cc3m)
        views = [rng.randrange(args.views) for _ in range(2)]
        cached = lambda kind: torch.from_numpy(np.concatenate([
            self.features["flickr_train", views[0], kind][flickr], self.features["cc3m", views[1], kind][cc]])).float()
        pools, nf, batch, losses = cached("pool"), len(flickr), len(flickr) + len(cc), {}
        features = pools
        if self.trunk is not None:
            maps = cached("map")
            features = self.pooled(self.trunk, maps.flip(3) if rng.random() < 0.5 else maps)
            losses["anchor"] = (args.weight_anchor, (1 - F.cosine_similarity(features, pools, dim=1)).mean())
        images = self.head(features)

        # All texts of the batch in one pass, then apart again.
        augmented = lambda caption: self.words.augmented(caption, rng)
        two = [rng.sample(self.flickr_captions[i], min(2, len(self.flickr_captions[i]))) for i in flickr]
        coco = [rng.sample(self.coco[i], 2) for i in self.take_coco.take(COCO_PAIRS)]
        with torch.no_grad():
            logits = self.teacher.logits(pools)
            likely = logits.topk(5).indices.flatten().numpy()
        classes = np.unique(np.concatenate([choice(likely, args.classes // 2), choice(1000, args.classes // 2, replace=False)]))
        names = self.take_name.take(CLIP_NAMES)
        words = choice(len(self.generic_words), args.words, replace=False)
        pick = lambda synonyms: synonyms[0] if len(synonyms) == 1 or rng.random() < 0.7 else rng.choice(synonyms)
        parts = [
            [augmented(t[0]) for t in two] + [augmented(self.cc3m_captions[i]) for i in cc],
            [augmented(t[-1]) for t in two],
            [augmented(a) for a, _ in coco],
            [augmented(b) for _, b in coco],
            self.encode([self.fill(None, pick(self.names[c])) for c in classes]),
            self.encode([self.fill(6, self.clip_names[i]) for i in names]),
            self.encode([self.fill(None, self.generic_words[i]) for i in words]),
        ]
        with self.autocast():
            rows = run_text(self.text, [ids for part in parts for ids in part])
        first, second, coco_a, coco_b, prompts, named, generic = rows.split([len(part) for part in parts])
        scale = self.scales.clamp(max=math.log(60.0)).exp()

        texts = torch.cat([first, second])
        owner = torch.cat([torch.arange(batch), torch.arange(nf)])
        scores = scale[0] * (images @ texts.T)
        log_p = F.log_softmax(scores, 1)
        own = log_p[torch.arange(batch), torch.arange(batch)].sum() + log_p[torch.arange(nf), batch + torch.arange(nf)].sum()
        losses["contrastive"] = (1.0, (F.cross_entropy(scores.T, owner) - own / (batch + nf)) / 2)

        random_index = lambda high, count: torch.from_numpy(self.numpy_rng.integers(0, high, count))
        class_numbers, target = torch.from_numpy(classes), random_index(len(classes), args.synthetic)
        moved = self.teacher.synthetic(pools[random_index(batch, args.synthetic)], class_numbers[target])
        losses["synthetic"] = (args.weight_synthetic, F.cross_entropy(scale[1] * (self.head(moved) @ prompts.T), target))
        losses["distil"] = (args.weight_distil, F.kl_div(
            F.log_softmax(scale[1] * (images @ prompts.T), 1), F.log_softmax(logits[:, class_numbers], 1), log_target=True,
            reduction="batchmean"))

        if args.weight_words:
            members, target = self.members[torch.from_numpy(words)], torch.arange(len(words)).repeat_interleave(SYNTHETIC_PER_WORD)
            of_word = torch.from_numpy(np.concatenate([choice(self.generic[self.generic_words[i]], SYNTHETIC_PER_WORD) for i in words]))
            moved = self.teacher.synthetic(pools[random_index(batch, len(of_word))], of_word)
            # A class may belong to several words; the others are no mistakes.
            also = members[:, of_word].T.bool()
            also[torch.arange(len(of_word)), target] = False
            scores = (scale[1] * (self.head(moved) @ generic.T)).masked_fill(also, -1e4)
            losses["words"] = (args.weight_words, F.cross_entropy(scores, target))
            share = F.softmax(logits, 1) @ members.T
            mass = share.sum(0)
            found = F.log_softmax(scale[0] * (generic @ images.T), 1)
            cross = -((share / mass.clamp(min=1e-6)).T * found).sum(1)
            if (mass > 0.5).any():
                losses["word retrieval"] = (args.weight_words, cross[mass > 0.5].mean())

        vectors, same = self.clip_vectors[torch.from_numpy(names)], torch.eye(len(names), dtype=torch.bool)
        losses["names"] = (args.weight_names, F.kl_div(
            F.log_softmax((scale[2] * (named @ named.T)).masked_fill(same, -1e4), 1),
            F.softmax((vectors @ vectors.T / 0.1).masked_fill(same, -1e4), 1), reduction="batchmean"))
        scores, target = scale[3] * (coco_a @ coco_b.T), torch.arange(len(coco))
        losses["captions"] = (args.weight_captions, (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2)
        return losses

    @torch.no_grad()
    def evaluate(self):
        """Retrieval on the development parts and Imagenette accuracy, with the averaged weights."""
        text, head = self.averages[:2]

        def images(pool, maps):
            if self.trunk is None:
                return head(torch.from_numpy(pool).float())
            return head(torch.cat([self.pooled(self.averages[2], torch.from_numpy(m).float())
                                   for m in np.array_split(maps, max(1, len(maps) // 100))]))

        dev = lambda name: images(self.dev_features[name, "pool"], self.dev_features.get((name, "map")))
        cc_maps = self.features["cc3m", 0, "map"][self.cc3m_dev] if self.trunk is not None else None
        cc = images(self.features["cc3m", 0, "pool"][self.cc3m_dev], cc_maps)
        with self.autocast():
            flickr_texts = run_text(text, [self.words.plain(c) for c in self.dev_captions]).float()
            cc_texts = run_text(text, [self.words.plain(self.cc3m_captions[i]) for i in self.cc3m_dev]).float()
            prompts = [run_text(text, self.encode([t.format(self.names[c][0]) for c in self.imagenette_classes]))
                       for t in EVALUATION_TEMPLATES]
        classes = F.normalize(torch.stack(prompts).float().mean(0), dim=-1)
        right = (dev("imagenette") @ classes.T).argmax(1) == self.imagenette_labels
        return dict(flickr=retrieval(dev("flickr_dev"), flickr_texts, self.dev_owner),
                    cc3m=retrieval(cc, cc_texts, torch.arange(len(cc))), imagenette=round(100 * right.float().mean().item(), 1))

    def save(self):
        text, head, *trunk = (module.state_dict() for module in self.averages)
        torch.save(dict(text=text, head=head, trunk=trunk[0] if trunk else None, scales=self.scales.data,
                        text_config=self.text_config, image_config=self.image_config), self.args.save)

    def step(self, progress, number):
        rate = min(1.0, (number + 1) / 40) * (0.49 * (1 + math.cos(math.pi * progress)) + 0.02)
        for group in self.optimiser.param_groups:
            group["lr"] = group["base"] * rate
        for module in self.modules:
            module.train()
        losses = self.losses()
        self.optimiser.zero_grad(set_to_none=True)
        sum(weight * loss for weight, loss in losses.values()).backward()
        torch.nn.utils.clip_grad_norm_([p for g in self.optimiser.param_groups for p in g["params"]], 1.0)
        self.optimiser.step()
        decay = min(self.args.average, (1 + number) / (10 + number))
        with torch.no_grad():
            for average, module in zip(self.averages, self.modules):
                for to, parameter in zip(average.parameters(), module.parameters()):
                    if parameter.requires_grad:
                        to.lerp_(parameter, 1 - decay)
        return {name: round(loss.item(), 3) for name, (_, loss) in losses.items()}

    def run(self):
        begin, last, number = time.time(), time.time(), 0
        while (progress := (time.time() - begin) / (60 * self.args.minutes)) < 1:
            losses = self.step(progress, number)
            number += 1
            if number in (1, 5, 20) or number % 50 == 0:
                print(f"step {number}, {100 * progress:.0f} %", losses, flush=True)
            if time.time() - last > 60:
                last = time.time()
                print("development", self.evaluate(), flush=True)
                self.save()
        print("development", self.evaluate(), flush=True)
        self.save()


if __name__ == "__main__":
    args = options()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    Training(args).run()
