"""clip-retrieval's `clip_back` as published, without its CLIP model: the queries are vectors.

usage: peer.py index ROOM           makes the index with clip-retrieval's clip_index
       peer.py tune ROOM VECTORS RECALL    finds the widest efSearch that does not find more and makes such an index; prints both
       peer.py serve ROOM PORT [FOLDER]
"""

import importlib.machinery
import importlib.util
import json
import sys
import sysconfig
import types
from pathlib import Path

# The package's own __init__ imports its training and inference side, with torch and all.
site = Path(sysconfig.get_path("purelib")) / "clip_retrieval"
package = types.ModuleType("clip_retrieval")
package.__path__ = [str(site)]
sys.modules["clip_retrieval"] = package
torch = types.ModuleType("torch")
torch.cuda = types.SimpleNamespace(is_available=lambda: False)
torch.__spec__ = importlib.machinery.ModuleSpec("torch", None)
all_clip = types.ModuleType("all_clip")
all_clip.load_clip = lambda *_, **__: (None, None, None)

mode, room = sys.argv[1], Path(sys.argv[2])
index = room / "clip-retrieval"
if mode == "index":
    from clip_retrieval.clip_index import clip_index

    if not (index / "image.index").exists():
        clip_index(str(room / "embeddings"), str(index))
elif mode == "tune":
    import faiss
    import numpy as np

    vectors, wanted = Path(sys.argv[3]), float(sys.argv[4])
    texts, truth = np.load(vectors / "text-queries-1203-f32.npy"), np.load(vectors / "text-gt-top100-u32.npy")
    tuned, made = faiss.read_index(str(index / "image.index")), room / "clip-retrieval-tuned"

    def recall_at(width):
        faiss.ParameterSpace().set_index_parameter(tuned, "efSearch", width)
        found = tuned.search(texts, 10)[1]
        return np.mean([len(set(a) & set(b[:10])) / 10 for a, b in zip(found.tolist(), truth.tolist())])

    least, most = 16, 16384
    while most - least > 1 + least // 50:
        middle = (least + most) // 2
        least, most = (middle, most) if recall_at(middle) <= wanted else (least, middle)
    ef, recall = least, recall_at(least)
    made.mkdir(exist_ok=True)
    faiss.write_index(tuned, str(made / "image.index"))
    if not (made / "metadata").exists():
        (made / "metadata").symlink_to(index / "metadata")
    print(ef, f"{recall:.4f}")
else:
    index = room / sys.argv[4] if len(sys.argv) > 4 else index
    sys.modules["torch"], sys.modules["all_clip"] = torch, all_clip
    import logging

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    from clip_retrieval.clip_back import clip_back

    paths = room / "indices_paths.json"
    paths.write_text(json.dumps({"news": str(index)}))
    clip_back(
        indices_paths=str(paths), port=int(sys.argv[3]), provide_safety_model=False, provide_violence_detector=False,
        provide_aesthetic_embeddings=False, enable_mclip_option=False, columns_to_return=["url", "caption", "NSFW"],
    )
