"""tintype's encoder beside ONNX Runtime and OpenVINO: the same shapes, the same pinned thread.

    cargo bench --no-run --bench encode         in the root of the repository
    python encode.py export DIR                 open_clip directories and ONNX files of ViT-B/32 (224 and 256) and ViT-B/16
    python encode.py compare DIR                measures
    python encode.py accuracy DIR               cosines with PyTorch, also for weights with outliers
    python encode.py export DIR --trunks        the same for trunks of convolutions, images alone: MobileCLIP2-S0 and -S2, ConvNeXt-base, RN50
    python encode.py compare DIR --trunks       measures them, in f32
    python encode.py work ENGINE THREADS DIR    answers requests, one JSON object per line (used by compare)

Weights are random: this is about speed. Every engine is a process of its own, pinned to one processor, and they take turns in
rounds; times are process CPU time and the tables show medians over the rounds. Peers get normalised f32 pixels and token ids;
tintype gets RGB bytes and texts, and normalises and tokenizes within its time. Texts of 8 tokens are cut behind their end in
all engines. ONNX Runtime's int8 is `quantize_dynamic` per channel, OpenVINO's is nncf's post-training quantisation for
transformers. Needs torch, open_clip_torch, onnx, onnxruntime, openvino and nncf.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

MODELS = {"vit-b-32-224": ("ViT-B-32", 224), "vit-b-32-256": ("ViT-B-32-256", 256), "vit-b-16-224": ("ViT-B-16", 224)}
TRUNKS = {"mobileclip2-s0": ("MobileCLIP2-S0", 256), "mobileclip2-s2": ("MobileCLIP2-S2", 256),
          "convnext-base": ("convnext_base", 224), "rn50": ("RN50", 224)}
START, END = 49406, 49407


def size_of(model):
    return {**MODELS, **TRUNKS}[model][1]


def export(directory, models):
    import open_clip
    import torch
    from safetensors.torch import save_file
    from timm.utils import reparameterize_model

    class Image(torch.nn.Module):
        def __init__(self, clip):
            super().__init__()
            self.clip = clip

        def forward(self, x):
            return self.clip.encode_image(x)

    class Text(Image):
        def forward(self, x):
            return self.clip.encode_text(x)

    for name, (architecture, size) in models.items():
        to = directory / name
        if (to / "text.onnx").is_file() or name in TRUNKS and (to / "image.onnx").is_file():
            continue
        to.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(7)
        clip = open_clip.create_model(architecture, pretrained=None).eval()
        with torch.no_grad():
            for parameter in clip.named_parameters():
                key, p = parameter
                # Large enough for every part to show in the result.
                if p.ndim >= 2 and "embedding" not in key and p.numel() > 1:
                    p.normal_(std=0.8 * p[0].numel() ** -0.5)
                elif key.endswith("bias"):
                    p.normal_(std=0.1)
                elif key.endswith("gamma"):
                    p.fill_(0.2)
        config = open_clip.get_model_config(architecture)
        (to / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
        save_file({k: v.contiguous() for k, v in clip.state_dict().items() if k != "attn_mask"}, to / "open_clip_model.safetensors")
        batch = torch.export.Dim("batch", min=1, max=64)
        tokens = torch.export.Dim("tokens", min=2, max=77)
        pixels = torch.randn(2, 3, size, size)
        if name in TRUNKS:
            # The branches that MobileCLIP was trained with are folded, as they are in tintype.
            clip = reparameterize_model(clip)
        torch.onnx.export(Image(clip), (pixels,), to / "image.onnx", dynamo=False, input_names=["x"], output_names=["y"],
                          dynamic_axes={"x": {0: "batch"}}, opset_version=17)
        if name in TRUNKS:
            print(name, file=sys.stderr)
            continue
        clip.attn_mask = clip.attn_mask  # the whole mask; the text below is cut by the caller
        texts = torch.randint(1, 40000, (2, 77))
        texts[:, 0], texts[:, -1] = START, END
        torch.onnx.export(Text(clip), (texts,), to / "text77.onnx", dynamo=False, input_names=["x"], output_names=["y"],
                          dynamic_axes={"x": {0: "batch"}}, opset_version=17)
        # Eight tokens: the same tower with a shorter context, as a caller would export it who cuts behind the end.
        clip.positional_embedding = torch.nn.Parameter(clip.positional_embedding[:8].clone())
        clip.attn_mask = clip.attn_mask[:8, :8]
        clip.context_length = 8
        torch.onnx.export(Text(clip), (texts[:, -8:],), to / "text8.onnx", dynamo=False, input_names=["x"], output_names=["y"],
                          dynamic_axes={"x": {0: "batch"}}, opset_version=17)
        (to / "text.onnx").write_text("")
        print(name, file=sys.stderr)


def with_outliers(directory):
    """A copy of ViT-B/32 whose residual stream has channels a hundred times as large as the others, as trained CLIPs have them
    (Sun et al. 2024, Massive Activations in Large Language Models, section 5)."""
    from safetensors.torch import load_file, save_file

    to = directory / "vit-b-32-224-outliers"
    if to.is_dir():
        return to
    state = load_file(directory / "vit-b-32-224" / "open_clip_model.safetensors")
    for tower, channels in [("visual.transformer", [(133, 150.0), (400, -100.0), (611, 60.0)]), ("transformer", [(77, 120.0), (301, -80.0)])]:
        for channel, value in channels:
            state[f"{tower}.resblocks.1.mlp.c_proj.bias"][channel] += value
    to.mkdir()
    save_file(state, to / "open_clip_model.safetensors")
    (to / "open_clip_config.json").write_text((directory / "vit-b-32-224" / "open_clip_config.json").read_text())
    return to


def accuracy(directory, isa):
    import open_clip
    import torch
    from safetensors.torch import load_file

    with_outliers(directory)
    texts = ["dog " * n for n in (1, 3, 6, 20, 60, 75)]
    commit = line_of("git", "log", "-1", "--format=%h")
    print(f"Smallest cosine with PyTorch's f32, instructions {isa}, commit {commit}: 8 pictures, {len(texts)} texts\n")
    print("| model | tower | " + " | ".join(OURS) + " |\n|---|---|---|---|---|")
    for name in ["vit-b-32-224-outliers", "vit-b-32-224", "vit-b-32-256", "vit-b-16-224"]:
        architecture, size = MODELS[name.removesuffix("-outliers")]
        clip = open_clip.create_model(architecture, pretrained=None).eval()
        clip.load_state_dict(load_file(directory / name / "open_clip_model.safetensors"), strict=False)
        # The pictures of the worker.
        j = np.arange(size * size * 3)
        pictures = np.stack([((j * 7919 % 251 + i * 31) % 256).reshape(size, size, 3) for i in range(8)]).astype(np.float32) / 255
        mean, std = np.array(open_clip.OPENAI_DATASET_MEAN), np.array(open_clip.OPENAI_DATASET_STD)
        pixels = torch.from_numpy(((pictures - mean) / std).transpose(0, 3, 1, 2).astype(np.float32).copy())
        tokenize = open_clip.get_tokenizer(architecture)
        with torch.inference_mode():
            expected = {"image": clip.encode_image(pixels).numpy(), "text": clip.encode_text(tokenize(texts)).numpy()}
        # Channels that are huge in every picture make all vectors alike; what tells them apart is what their mean leaves.
        kinds = ["", ", mean taken off"] if name.endswith("-outliers") else [""]
        found = {}
        for kind in OURS:
            worker = Worker(kind, 1, directory, "0,1", isa)
            for tower in expected:
                rows = worker.ask(model=name, tower=tower, batch=8, texts=texts, embed=True, runs=1, repeat=1)["rows"]
                rows, truth = np.array(rows, np.float64).reshape(len(expected[tower]), -1), expected[tower].astype(np.float64)
                rows /= np.linalg.norm(rows, axis=1, keepdims=True)
                truth /= np.linalg.norm(truth, axis=1, keepdims=True)
                for how, mean in zip(kinds, [0, truth.mean(0)]):
                    a, b = rows - mean, truth - mean
                    found[kind, tower, how] = ((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).min()
            worker.end()
        for tower, how in [(tower, how) for tower in expected for how in kinds]:
            print(f"| {name} | {tower}{how} | " + " | ".join(f"{found[kind, tower, how]:.6f}" for kind in OURS) + " |", flush=True)


def inputs(model, tower, batch, tokens):
    random = np.random.default_rng(3)
    if tower == "image":
        return random.standard_normal((batch, 3, size_of(model), size_of(model))).astype(np.float32)
    ids = random.integers(1, 40000, (batch, tokens))
    ids[:, 0], ids[:, -1] = START, END
    return ids.astype(np.int64)


class OnnxRuntime:
    def __init__(self, kind, threads):
        import onnxruntime

        self.kind, self.runtime = kind, onnxruntime
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        self.options.add_session_config_entry("session.intra_op.allow_spinning", "0")

    def load(self, file, sample):
        if self.kind == "int8":
            quantised = file.with_suffix(".int8.onnx")
            if not quantised.is_file():
                from onnxruntime.quantization import QuantType, quantize_dynamic

                quantize_dynamic(file, quantised, per_channel=True, weight_type=QuantType.QInt8,
                                 extra_options={"MatMulConstBOnly": True}, op_types_to_quantize=["MatMul", "Gemm"])
            file = quantised
        session = self.runtime.InferenceSession(str(file), self.options, providers=["CPUExecutionProvider"])
        return lambda x: session.run(None, {"x": x})[0]


class OpenVino:
    def __init__(self, kind, threads):
        import openvino

        self.kind, self.core = kind, openvino.Core()
        self.settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
                         "ENABLE_CPU_PINNING": False, "INFERENCE_PRECISION_HINT": "bf16" if kind == "bf16" else "f32"}

    def load(self, file, sample):
        model = self.core.read_model(str(file))
        if self.kind == "int8":
            quantised = file.with_suffix(".int8.xml")
            if not quantised.is_file():
                import nncf
                import openvino

                data = [sample(seed) for seed in range(8)]
                model = nncf.quantize(model, nncf.Dataset(data), model_type=nncf.ModelType.TRANSFORMER, subset_size=8,
                                      fast_bias_correction=True)
                openvino.save_model(model, str(quantised), compress_to_fp16=False)
            model = self.core.read_model(str(quantised))
        compiled = self.core.compile_model(model, "CPU", self.settings)
        return lambda x: compiled([x])[0]


def work(engine, threads, directory):
    family, kind = engine.split("-")
    runtime = {"ort": OnnxRuntime, "openvino": OpenVino}[family](kind, threads)
    loaded = {}
    for line in sys.stdin:
        request = json.loads(line)
        model, tower, batch, tokens = request["model"], request["tower"], request["batch"], request.get("tokens", 77)
        name = "image" if tower == "image" else f"text{tokens}"
        if loaded.get("of") != (model, name):
            def sample(seed):
                return inputs(model, tower, 1, tokens)

            loaded = {"of": (model, name), "run": runtime.load(directory / model / f"{name}.onnx", sample)}
        x, run = inputs(model, tower, batch, tokens), loaded["run"]
        run(x)
        cpu, wall = [], []
        repeat = request["repeat"]
        for _ in range(request["runs"]):
            t, w = time.process_time(), time.perf_counter()
            for _ in range(repeat):
                run(x)
            cpu.append((time.process_time() - t) / repeat)
            wall.append((time.perf_counter() - w) / repeat)
        print("\n" + json.dumps({"cpu": cpu, "wall": wall}), flush=True)


ROOT = Path(__file__).resolve().parent.parent.parent
PEERS = ["ort-f32", "openvino-f32", "openvino-bf16", "ort-int8", "openvino-int8"]
OURS = ["f32", "bf16", "int8"]
CASES = [(model, "image", batch, 0) for model in MODELS for batch in (1, 8)]
CASES += [("vit-b-32-224", "text", batch, tokens) for tokens in (8, 77) for batch in (1, 8)]


def operations(model, tower, tokens):
    """Of one picture or text, all of it: no engine is credited for what it leaves out."""
    if tower == "image":
        patch = int(model.split("-")[2])
        patches, width, layers, dim = (size_of(model) // patch) ** 2, 768, 12, 512
        rest, tokens = 2 * patches * 3 * patch**2 * width + 2 * width * dim, patches + 1
    else:
        width, layers, dim, rest = 512, 12, 512, 2 * 512 * 512
    return rest + layers * (2 * tokens * 12 * width**2 + 4 * tokens**2 * width)


def without_avx512(directory):
    """A folder with a copy of ONNX Runtime that sees no AVX-512, for which it has no switch: where it asks the processor which
    registers the system saves (xgetbv), the answer becomes that of a system that saves none of 512 bits."""
    import onnxruntime

    package = Path(onnxruntime.__file__).parent
    to = directory / f"onnxruntime-{onnxruntime.__version__}-avx2"
    if not to.is_dir():
        aside = to.with_suffix(".part")
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(package, aside / package.name)
        for library in (aside / package.name / "capi").glob("onnxruntime_pybind11_state*"):
            code = library.read_bytes()
            ask = b"\x31\xc9\x0f\x01\xd0"  # xor ecx, ecx; xgetbv
            if ask not in code:
                raise SystemExit(f"{library}: this build asks in another way")
            library.write_bytes(code.replace(ask, b"\x31\xc9\xb0\x07\x90"))  # mov al, 7; nop
        aside.rename(to)
    return to


class Worker:
    """An engine's process."""

    def __init__(self, engine, threads, directory, cpus, isa="best"):
        self.name = engine
        if engine in PEERS:
            command = [sys.executable, __file__, "work", engine, str(threads), str(directory)]
        else:
            command = [encoder_bench(), "--bench", "--work", engine, isa, str(directory)]
        environment = dict(os.environ, RAYON_NUM_THREADS=str(threads), OMP_NUM_THREADS=str(threads))
        if isa == "avx2":
            environment["ONEDNN_MAX_CPU_ISA"] = "AVX2"
            if engine.startswith("ort"):
                environment["PYTHONPATH"] = str(without_avx512(directory))
        self.process = subprocess.Popen(["taskset", "-c", cpus, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True, env=environment)

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"{self.name}: its process ended")

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def encoder_bench():
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    files = (target / "release/deps").glob("encode-*")
    files = [f for f in files if os.access(f, os.X_OK) and not f.suffix]
    if not files:
        raise SystemExit("cargo bench --no-run --bench encode")
    return str(max(files, key=lambda f: f.stat().st_mtime))


def compare_trunks(directory, rounds, cpu, isa):
    """Milliseconds of each engine for a picture of each trunk, and how many times as fast tintype is; all of a round runs in turns.

    Returns the table and, by trunk, batch and engine, the seconds of processor time per batch in each round."""
    engines = ["f32", "ort-f32", "openvino-f32"]
    lines = ["| trunk | batch | tintype | ONNX Runtime | OpenVINO | tintype : ONNX Runtime | tintype : OpenVINO |", "|---" * 7 + "|"]
    raw = []
    for model in TRUNKS:
        workers = {e: Worker(e, 1, directory, cpu, isa) for e in engines}
        for batch in (1, 8):
            measured = {e: [] for e in engines}
            for _ in range(rounds):
                for engine, worker in workers.items():
                    answer = worker.ask(model=model, tower="image", batch=batch, runs=1, repeat=max(1, 4 // batch))
                    measured[engine] += answer["cpu"]
            raw += [{"trunk": model, "batch": batch, "engine": e, "seconds": times} for e, times in measured.items()]
            each = {e: statistics.median(times) * 1e3 / batch for e, times in measured.items()}
            ratios = [statistics.median(p / o for p, o in zip(measured[e], measured["f32"])) for e in engines[1:]]
            lines.append(f"| {model} | {batch} | " + " | ".join(f"{each[e]:.1f}" for e in engines)
                         + " | " + " | ".join(f"{r:.2f}" for r in ratios) + " |")
            print(lines[-1], file=sys.stderr, flush=True)
        for worker in workers.values():
            worker.end()
    return "\n".join(lines), raw


def compare(directory, rounds, cpu, only, isa):
    engines = [e for e in OURS + PEERS if not only or e in only]
    workers = {e: Worker(e, 1, directory, cpu, isa) for e in engines}
    peaks = {}
    for engine in [e for e in OURS if e in workers]:
        answer = [workers[engine].ask(model="", tower="peak", runs=5) for _ in range(3)]
        peaks[engine] = max(a["operations"] / t for a in answer for t in a["cpu"])
    measured = {}
    for case in CASES:
        model, tower, batch, tokens = case
        work = operations(model, tower, tokens) * batch
        # About a fifth of a second per measurement.
        repeat = max(1, int(0.2 * 4e11 / work))
        for _ in range(rounds):
            for engine, worker in workers.items():
                answer = worker.ask(model=model, tower=tower, batch=batch, tokens=tokens, runs=1, repeat=repeat)
                measured.setdefault((case, engine), []).extend(answer["cpu"])
        print(case, {e: round(statistics.median(measured[case, e]) * 1e3, 2) for e in engines}, file=sys.stderr, flush=True)
    for worker in workers.values():
        worker.end()
    return engines, peaks, {key: statistics.median(times) for key, times in measured.items()}, measured


def table(engines, peaks, medians):
    lines = ["| case | " + " | ".join(engines) + " |", "|---" * (len(engines) + 1) + "|"]
    for model, tower, batch, tokens in CASES:
        case = (model, tower, batch, tokens)
        name = f"{model}, batch {batch}" if tower == "image" else f"text of {tokens}, batch {batch}"
        cells = []
        for engine in engines:
            time = medians[case, engine]
            kind = engine.split("-")[-1]
            percent = f" ({100 * operations(model, tower, tokens) * batch / time / peaks[kind]:.0f} %)" if kind in peaks else ""
            cells.append(f"{time * 1e3:.2f}{percent}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratios(engines, medians):
    """How many times as fast as each peer of the same precision, and int8 as ONNX Runtime in f32."""
    pairs = [(o, p) for o in OURS for p in PEERS if o in engines and p in engines and p.endswith("-" + o)]
    if "int8" in engines and "ort-f32" in engines:
        pairs.append(("int8", "ort-f32"))
    if "int8" in engines and "f32" in engines:
        pairs.append(("int8", "f32"))
    lines = ["| case | " + " | ".join(f"{o} : {p}" for o, p in pairs) + " |", "|---" * (len(pairs) + 1) + "|"]
    for model, tower, batch, tokens in CASES:
        case = (model, tower, batch, tokens)
        name = f"{model}, batch {batch}" if tower == "image" else f"text of {tokens}, batch {batch}"
        lines.append(f"| {name} | " + " | ".join(f"{medians[case, p] / medians[case, o]:.2f}" for o, p in pairs) + " |")
    return "\n".join(lines)


def line_of(*command):
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.strip()


def conditions(args, before):
    """What a table of figures must say of how they came about."""
    commit = line_of("git", "log", "-1", "--format=%h")
    of = {line.split(":")[0].strip(): line.split(":")[1].strip() for line in open("/proc/cpuinfo") if ":" in line}
    load = f"load {before[0]:.1f} before and {os.getloadavg()[0]:.1f} after"
    return (f"{of['model name']} (family {of['cpu family']}), one pinned thread, {args.rounds} rounds, commit {commit}, {load}, "
            f"instructions {args.isa}.")


def main():
    import argparse

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["export", "compare", "accuracy"])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu", default="1")
    parser.add_argument("--engines", default="")
    parser.add_argument("--isa", default="best", help="instructions of tintype: best, avx512-vnni, avx512, avx2-vnni, avx2, portable")
    parser.add_argument("--trunks", action="store_true", help="trunks of convolutions instead of vision transformers")
    parser.add_argument("--out", type=Path, help="a file for the tables; with --trunks, all measurements go beside it as JSON")
    args = parser.parse_args()
    if args.what == "export":
        return export(args.directory, TRUNKS if args.trunks else MODELS)
    if args.what == "accuracy":
        return accuracy(args.directory, args.isa)
    before = os.getloadavg()
    if args.trunks:
        rows, raw = compare_trunks(args.directory, args.rounds, args.cpu, args.isa)
        text = f"""# Trunks of convolutions beside ONNX Runtime and OpenVINO

{conditions(args, before)}
Milliseconds of process CPU time for a picture in f32, medians; a ratio above 1 says how many times as fast tintype is.

{rows}
"""
        print(text)
        if args.out:
            args.out.write_text(text)
            args.out.with_suffix(".json").write_text("[\n" + ",\n".join(json.dumps(row) for row in raw) + "\n]\n")
        return
    engines, peaks, medians, measured = compare(args.directory, args.rounds, args.cpu, args.engines.split(",") if args.engines else [], args.isa)
    text = f"""# The encoder beside ONNX Runtime and OpenVINO

{conditions(args, before)}
Milliseconds of process CPU time per batch, medians; in brackets the percentage of this core's peak in that precision
({", ".join(f"{kind} {peak / 1e9:.0f}" for kind, peak in peaks.items())} billion operations per second), counting all of the model's operations for every engine.

{table(engines, peaks, medians)}

How many times as fast:

{ratios(engines, medians)}
"""
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "work":
        work(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
