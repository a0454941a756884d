#!/bin/sh
# The whole training, in order: run.sh DATA [WORK [OUT]]. Two CPU cores, under an hour.
# Needs torch numpy pillow onnx onnxruntime tokenizers safetensors open_clip_torch tflite.
set -eu
data=$1 work=${2:-work} out=${3:-out}
cd "$(dirname "$0")"
# Spinning OpenMP threads cost a multiple of the time on a machine that is shared.
export OMP_WAIT_POLICY=PASSIVE TOKENIZERS_PARALLELISM=false
set -- --data "$data" --work "$work" --out "$out"
python mobilenet.py "$@"
python tokenizer.py "$@"
python features.py "$@"
python train.py "$@" --phase 1 --minutes 16 --weight-words 0 --save "$work/phase1.pt"
tuned="--lr 6e-4 --text-dropout 0.15 --image-dropout 0.2 --weight-anchor 2 --flickr 256 --cc3m 512"
# The shipped weights come from 6.4 of 20 planned minutes here; the schedule is the same from the next step on.
python train.py "$@" --phase 2 --minutes 7 --init "$work/phase1.pt" --save "$work/phase2a.pt" $tuned --weight-words 0 --synthetic 384
python train.py "$@" --phase 2 --minutes 16 --init "$work/phase2a.pt" --save "$work/phase2.pt" $tuned --synthetic 512 \
    --classes 384 --weight-synthetic 0.7 --weight-distil 0.7 --weight-words 0.4
python export.py "$@" "$work/phase2.pt"
python merges.py "$out/tokenizer.json" "$out/merges.bin"
python evaluate.py "$@"
