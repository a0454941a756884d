"""The two towers in PyTorch, and the int8 form of their weights."""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

# MobileNetV2 1.0: (expansion, channels, blocks, stride of the first block). TensorFlow's "SAME" padding, batch norms folded.
STAGES = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
FEATURES = 1280

# Training works on cached maps, the output of the first 160-channel block: (160, 7, 7). Blocks from here on are trained.
SPLIT = 14


def layer_list():
    """The convolutions in order: dicts of name, kind (conv or dw), cin, cout, k, stride, relu6 and, for projections, res."""
    layers = [dict(name="stem", kind="conv", cin=3, cout=32, k=3, stride=2, relu6=True)]
    cin, block = 32, 0
    for expansion, channels, blocks, first_stride in STAGES:
        for i in range(blocks):
            stride, hidden, name = first_stride if i == 0 else 1, cin * expansion, f"block{block}"
            if expansion != 1:
                layers.append(dict(name=f"{name}.expand", kind="conv", cin=cin, cout=hidden, k=1, stride=1, relu6=True))
            layers.append(dict(name=f"{name}.dw", kind="dw", cin=hidden, cout=hidden, k=3, stride=stride, relu6=True))
            residual = stride == 1 and cin == channels
            layers.append(dict(name=f"{name}.project", kind="conv", cin=hidden, cout=channels, k=1, stride=1, relu6=False,
                               res=residual))
            cin, block = channels, block + 1
    layers.append(dict(name="head", kind="conv", cin=cin, cout=FEATURES, k=1, stride=1, relu6=True))
    return layers


class Conv(nn.Module):
    """A folded convolution with TensorFlow's padding."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        groups = layer["cin"] if layer["kind"] == "dw" else 1
        self.conv = nn.Conv2d(layer["cin"], layer["cout"], layer["k"], layer["stride"], 0, groups=groups, bias=True)

    def forward(self, x):
        if self.layer["k"] == 3:
            # Stride 2 on an even size pads the right and the bottom only.
            x = F.pad(x, (1, 1, 1, 1) if self.layer["stride"] == 1 else (0, 1, 0, 1))
        x = self.conv(x)
        return x.clamp(0, 6) if self.layer["relu6"] else x


class Trunk(nn.Module):
    """MobileNetV2: (n, 3, h, w) in -1..1 to (n, 1280, h / 32, w / 32)."""

    def __init__(self):
        super().__init__()
        blocks, parts = [], []
        for layer in layer_list():
            conv = Conv(layer)
            if layer["name"] == "stem":
                self.stem = conv
            elif layer["name"] == "head":
                self.head = conv
            else:
                parts.append((layer["name"].split(".")[1], conv))
                if layer["name"].endswith("project"):
                    block = nn.ModuleDict(parts)
                    block.res = layer["res"]
                    blocks.append(block)
                    parts = []
        self.blocks = nn.ModuleList(blocks)

    @staticmethod
    def run_block(block, x):
        y = block["expand"](x) if "expand" in block else x
        y = block["project"](block["dw"](y))
        return x + y if block.res else y

    def upper(self, x, split=SPLIT):
        """From the map after `split` blocks to the head's map."""
        for block in self.blocks[split:]:
            x = self.run_block(block, x)
        return self.head(x)

    def forward(self, x):
        return self.upper(self.stem(x), 0)

    def convs(self):
        yield "stem", self.stem
        for i, block in enumerate(self.blocks):
            for part in ("expand", "dw", "project"):
                if part in block:
                    yield f"block{i}.{part}", block[part]
        yield "head", self.head

    def load_numpy(self, arrays):
        with torch.no_grad():
            for name, module in self.convs():
                module.conv.weight.copy_(torch.from_numpy(arrays[name + ".weight"]))
                module.conv.bias.copy_(torch.from_numpy(arrays[name + ".bias"]))
        return self


class ImageHead(nn.Module):
    """Pooled features, square root, standardised; a linear map plus a two-layer MLP; L2."""

    def __init__(self, dim=256, hidden=512, din=FEATURES, drop=0.1):
        super().__init__()
        self.register_buffer("mu", torch.zeros(din))
        self.register_buffer("inv_sd", torch.ones(din))
        self.fc1 = nn.Linear(din, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.skip = nn.Linear(din, dim, bias=False)
        self.drop = drop

    def forward(self, features):
        x = ((features.clamp(min=0) + 1e-4).sqrt() - self.mu) * self.inv_sd
        x = F.dropout(x, self.drop, self.training)
        h = F.dropout(F.gelu(self.fc1(x), approximate="tanh"), self.drop, self.training)
        return F.normalize(self.fc2(h) + self.skip(x), dim=-1)


class TextBlock(nn.Module):
    """A pre-norm transformer layer without a causal mask."""

    def __init__(self, width, heads, mlp):
        super().__init__()
        self.heads = heads
        self.ln1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.ln2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, mlp * width)
        self.fc2 = nn.Linear(mlp * width, width)

    def forward(self, x, bias):
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = x + self.proj(a.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.fc2(F.gelu(self.fc1(self.ln2(x)), approximate="tanh"))


class TextTower(nn.Module):
    """Learned positions, transformer layers, mean over the real tokens, linear, L2. Dropout on the embeddings alone."""

    def __init__(self, vocab, width=192, layers=2, heads=6, mlp=2, maxlen=32, dim=256, drop=0.1):
        super().__init__()
        self.emb = nn.Embedding(vocab, width)
        self.pos = nn.Parameter(torch.zeros(maxlen, width))
        nn.init.normal_(self.emb.weight, std=0.05)
        nn.init.normal_(self.pos, std=0.01)
        self.blocks = nn.ModuleList([TextBlock(width, heads, mlp) for _ in range(layers)])
        self.ln = nn.LayerNorm(width)
        self.out = nn.Linear(width, dim, bias=False)
        self.drop = drop
        for block in self.blocks:
            for linear in (block.proj, block.fc2):
                nn.init.normal_(linear.weight, std=0.02 / math.sqrt(2 * layers))
                nn.init.zeros_(linear.bias)

    def forward(self, ids):
        """ids: (batch, tokens) int64, 0 is padding."""
        mask = ids != 0
        bias = torch.zeros(ids.shape, dtype=self.pos.dtype).masked_fill_(~mask, -1e4)[:, None, None, :]
        x = F.dropout(self.emb(ids) + self.pos[: ids.shape[1]], self.drop, self.training)
        for block in self.blocks:
            x = block(x, bias.to(x.dtype))
        x, mask = self.ln(x), mask[..., None].to(x.dtype)
        return F.normalize(self.out((x * mask).sum(1) / mask.sum(1).clamp(min=1)).float(), dim=-1)


def flattened(text, head, trunk, logit_scale):
    """All weights under the names of the weight file."""
    tensors = {}
    for name, module in trunk.convs():
        tensors[f"image.{name}.weight"], tensors[f"image.{name}.bias"] = module.conv.weight, module.conv.bias
    tensors.update({f"image.proj.{k}": v for k, v in head.state_dict().items()})
    tensors.update({f"text.{k}": v for k, v in text.state_dict().items()})
    tensors["logit_scale"] = logit_scale.exp().reshape(1)
    return {k: v.detach().float().contiguous().clone() for k, v in tensors.items()}


def quantised(tensors):
    """Symmetric int8 per row (dimension 0) with the scale in NAME.scale; vectors and positions stay f32."""
    out = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2 or name == "text.pos":
            out[name] = tensor
            continue
        scale = (tensor.flatten(1).abs().amax(1) / 127).clamp(min=1e-12)
        rows = (tensor / scale.view(-1, *[1] * (tensor.ndim - 1))).round().clamp(-127, 127)
        out[name], out[name + ".scale"] = rows.to(torch.int8), scale
    return out


def dequantised(tensors):
    """The f32 weights that an int8 file stands for; an f32 file comes back as it is."""
    out = {}
    for name, tensor in tensors.items():
        if name.endswith(".scale"):
            continue
        scale = tensors.get(name + ".scale")
        out[name] = tensor.float() if scale is None else tensor.float() * scale.view(-1, *[1] * (tensor.ndim - 1))
    return out
