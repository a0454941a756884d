"""tintype on a GPU beside PyTorch on the same one: pictures per second of the models that encode.py exports.

    cargo bench --no-run --bench encode --features cuda      in the root of the repository; `metal` on a Mac
    python encode.py export DIR
    python gpu.py DIR                                        --device metal on a Mac; cpu to try the script without a GPU

Wall time of pictures on their way from bytes in memory to normalised vectors in memory, medians over rounds in turns, f32 and bf16:
tintype's linear maps and attention in bf16, PyTorch's model converted to bf16 as a whole. PyTorch gets normalised f32 pixels, whose
way to the device is within its time; its f32 is f32 (no TF32). Needs what encode.py needs.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

from encode import MODELS, Worker, inputs, line_of

BATCHES = (1, 8, 32, 128)
TORCH = {"cuda": "cuda", "metal": "mps", "cpu": "cpu"}


class PyTorch:
    def __init__(self, directory, model, kind, device):
        import open_clip
        import torch
        from safetensors.torch import load_file

        self.torch, self.device = torch, device
        self.number = {"f32": torch.float32, "bf16": torch.bfloat16}[kind]
        clip = open_clip.create_model(MODELS[model][0], pretrained=None)
        clip.load_state_dict(load_file(directory / model / "open_clip_model.safetensors"), strict=False)
        self.clip = clip.eval().to(device, self.number)

    def run(self, pixels):
        with self.torch.inference_mode():
            x = self.torch.from_numpy(pixels).to(self.device, self.number)
            return self.clip.encode_image(x, normalize=True).float().cpu().numpy()

    def seconds(self, model, batch, repeat):
        x = inputs(model, "image", batch, 0)
        self.run(x)
        start = time.perf_counter()
        for _ in range(repeat):
            self.run(x)
        return (time.perf_counter() - start) / repeat


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--device", choices=list(TORCH), default="cuda")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)))
    args = parser.parse_args()
    import torch

    cpus = f"0-{os.cpu_count() - 1}"
    name = torch.cuda.get_device_name() if args.device == "cuda" else args.device
    print(f"{name}, PyTorch {torch.__version__}, commit {line_of('git', 'log', '-1', '--format=%h')}, {args.rounds} rounds\n")
    print("| model | batch | numbers | tintype, pictures/s | PyTorch, pictures/s | tintype : PyTorch |\n" + "|---" * 6 + "|")
    for model in args.models.split(","):
        for kind in ("f32", "bf16"):
            peer = PyTorch(args.directory, model, kind, TORCH[args.device])
            worker = Worker(kind, torch.get_num_threads(), args.directory, cpus, args.device)
            for batch in map(int, args.batches.split(",")):
                repeat = 1 if args.device == "cpu" else max(1, 64 // batch)
                ours, theirs = [], []
                for _ in range(args.rounds):
                    ours += worker.ask(model=model, tower="image", batch=batch, runs=1, repeat=repeat)["wall"]
                    theirs.append(peer.seconds(model, batch, repeat))
                a, b = batch / statistics.median(ours), batch / statistics.median(theirs)
                print(f"| {model} | {batch} | {kind} | {a:.0f} | {b:.0f} | {a / b:.2f} |", flush=True)
            worker.end()


if __name__ == "__main__":
    main()
