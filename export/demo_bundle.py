"""Make the bundle that ships inside the package: random weights, tiny, for `hermes-edge demo`."""

from pathlib import Path
from tempfile import TemporaryDirectory

import hermes_edge
from hermes_edge.export import export_checkpoint, make_random_checkpoint

TARGET = Path(hermes_edge.__file__).parent / "assets" / "demo"

if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "hermes-tiny-random"
        make_random_checkpoint(checkpoint, "tiny")
        manifest = export_checkpoint(checkpoint, TARGET, embedding_probe=True, overwrite=True)
    print(f"{TARGET}: {sum(record.bytes for record in manifest.files):,} B")
