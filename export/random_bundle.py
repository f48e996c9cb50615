"""Make the bundle that the tests run on: random weights, tiny."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hermes_edge.export import export_checkpoint, make_random_checkpoint

TARGET = Path(__file__).parents[1] / "tests" / "random-bundle"

if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "hermes-tiny-random"
        make_random_checkpoint(checkpoint, "tiny")
        manifest = export_checkpoint(checkpoint, TARGET, embedding_probe=True, overwrite=True)
    print(f"{TARGET}: {sum(record.bytes for record in manifest.files):,} B")
