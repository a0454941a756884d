"""clip-retrieval's `clip_back` as published, without its CLIP model: the queries are vectors.

usage: peer.py index ROOM      makes the index with clip-retrieval's clip_index
       peer.py serve ROOM PORT
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
else:
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
