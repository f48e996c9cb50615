"""The command line: ``hermes-edge VERB``."""

import sys

_INTERRUPTED = 130


def main() -> None:
    """Run the command line on the arguments of this process, and exit."""
    try:
        # Here, and not above: loading takes long enough to be interrupted, without a traceback.
        from hermes_edge.cli.app import run_app

        run_app()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
