"""Make what ships inside the package of a trained checkpoint: weights, bundle and demo video.

python -m hermes_edge.training FOLDER
python export/hermes_tiny.py FOLDER/checkpoint
"""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import LlavaOnevisionForConditionalGeneration

from hermes_edge import shipped
from hermes_edge.export import export_checkpoint
from hermes_edge.synthetic import make_stream, write_video


def halve(trained: Path, target: Path) -> None:
    """Copy a checkpoint with its weights in half precision: half the size, the same answers."""
    shutil.copytree(trained, target, dirs_exist_ok=True)
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(trained, dtype=torch.float16)
    model.save_pretrained(target)


if __name__ == "__main__":
    bundle = shipped.TINY_BUNDLE
    halve(Path(sys.argv[1]), shipped.TINY_CHECKPOINT)
    with TemporaryDirectory() as folder:
        # The bundle carries the name of its checkpoint's folder.
        named = shutil.copytree(shipped.TINY_CHECKPOINT, Path(folder) / "hermes-tiny")
        manifest = export_checkpoint(named, bundle, embedding_probe=True, overwrite=True)
    write_video(shipped.DEMO_VIDEO, make_stream(shipped.DEMO_SEED, shipped.DEMO_FRAMES))
    print(f"{bundle}: {sum(record.bytes for record in manifest.files):,} B")
