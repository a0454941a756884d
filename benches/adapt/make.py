"""Makes folders per class to try `tintype adapt` on.

    pip install scikit-learn pillow
    python make.py digits OUT                                  # scikit-learn's 1,797 handwritten digits, as pictures
    python make.py scenes OUT captions.jsonl [PHOTO_FOLDER]    # photos with five captions each, by what the captions agree on

`scenes` takes Flickr8k, or any list of {"file", "captions"}: a photo belongs to a class if at least three of its captions use a word
of the class and no more than one uses a word of any other class. Nothing of the model under test takes part in that.
"""
import json
import re
import shutil
import sys
from pathlib import Path

SCENES = {
    "climbing": r"climb\w*|rappel\w*",
    "riding on wheels": r"bicycl\w*|bik(e|es|er|ers|ing)|cyclist\w*|skateboard\w*|motorcycl\w*|motorbike\w*|atv",
    "snow": r"snow\w*|ski|skis|skier\w*|skiing|sled\w*",
    "ball games": r"football|soccer|basketball|baseball|tennis|rugby|hockey|volleyball",
    "swimming pool": r"swim\w*|pool|pools",
    "surf and sea": r"surf\w*|wave|waves|ocean|beach|sea",
    "dogs on grass": r"grass|grassy|lawn",
    "swings and slides": r"swing|swings|swinging|slide|slides|sliding|playground|trampoline",
    "in the street": r"street|sidewalk|crowd|city|corner|store|shop",
}


def digits(out):
    from PIL import Image
    from sklearn.datasets import load_digits

    names = "zero one two three four five six seven eight nine".split()
    found = load_digits()
    for number, (picture, digit) in enumerate(zip(found.images, found.target)):
        folder = out / names[digit]
        folder.mkdir(parents=True, exist_ok=True)
        grey = Image.fromarray((255 - picture * 255 / 16).round().astype("uint8"))
        grey.resize((96, 96), Image.BICUBIC).save(folder / f"{number:04}.png")


def scenes(out, captions, photos):
    rules = {name: re.compile(rf"\b({words})\b", re.I) for name, words in SCENES.items()}
    for line in captions.read_text().splitlines():
        entry = json.loads(line)
        said = {name: sum(bool(rule.search(text)) for text in entry["captions"]) for name, rule in rules.items()}
        dogs = sum(bool(re.search(r"\bdogs?|puppy|puppies\b", text, re.I)) for text in entry["captions"])
        if dogs < 3:
            said["dogs on grass"] = 0
        name = max(said, key=said.get)
        if said[name] >= 3 and all(count <= 1 for other, count in said.items() if other != name):
            folder = out / name.replace(" ", "_")
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(photos / entry["file"], folder)


if __name__ == "__main__":
    kind, out = sys.argv[1], Path(sys.argv[2])
    if kind == "digits":
        digits(out)
    else:
        captions = Path(sys.argv[3])
        scenes(out, captions, Path(sys.argv[4]) if len(sys.argv) > 4 else captions.parent)
    for folder in sorted(out.iterdir()):
        print(f"{len(list(folder.iterdir())):5}  {folder.name}")
