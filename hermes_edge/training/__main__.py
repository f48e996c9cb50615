"""``python -m hermes_edge.training FOLDER``: trains hermes-tiny, or goes on with it."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    try:
        # Here, and not above: loading takes long enough to be interrupted, without a traceback.
        import typer

        from hermes_edge.training.command import train
    except KeyboardInterrupt:
        sys.exit(130)
    typer.run(train)
