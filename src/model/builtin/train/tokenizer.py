"""Step 2: trains the byte-level BPE tokenizer on all training text. Writes OUT/tokenizer.json; <pad> is 0."""
import os

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from data import arguments, cc3m, clean, clip_names, coco_captions, flickr_split, imagenet_names

args = arguments(__doc__).parse_args()
os.makedirs(args.out, exist_ok=True)
groups = [captions for _, captions in flickr_split(args.data)[0] + cc3m(args.data)] + coco_captions(args.data)
lines = [clean(caption) for captions in groups for caption in captions]
names = [name for names in imagenet_names(args.data) for name in names] + clip_names(args.data)[0]
lines += [f"a photo of a {name}" for name in names] * 3

tokenizer = Tokenizer(models.BPE())
tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
tokenizer.decoder = decoders.ByteLevel()
tokenizer.train_from_iterator(lines, trainers.BpeTrainer(
    vocab_size=8192, special_tokens=["<pad>"], min_frequency=2, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False))
tokenizer.save(f"{args.out}/tokenizer.json")
