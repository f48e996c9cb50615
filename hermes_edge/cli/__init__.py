"""The command line: ``hermes-edge VERB``."""

import os
import sys
import threading

_INTERRUPTED = 130


def main() -> None:
    """Run the command line on the arguments of this process, and exit."""
    try:
        try:
            # Here, and not above: loading takes long enough to be interrupted, without a traceback.
            from hermes_edge.cli.app import run_app

            run_app()
        except KeyboardInterrupt:
            sys.exit(_INTERRUPTED)
    except SystemExit as leaving:
        # A source that hangs was left to its time-out. A thread that comes back from OpenCV while
        # the interpreter ends would abort the process (CPython 3.13 and older).
        if any(thread.name.startswith("capture ") for thread in threading.enumerate()):
            _leave_now(leaving.code)
        raise


def _leave_now(code: int | str | None) -> None:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code if isinstance(code, int) else int(code is not None))
