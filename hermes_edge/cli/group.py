"""How errors leave the process: one message on stderr, the error's own exit code."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from hermes_edge.cli.output import stderr, without_controls
from hermes_edge.errors import HermesEdgeError

# Of click, or of the copy of click that newer versions of typer hold.
_UsageError: Any = typer.BadParameter.__base__


class VerbGroup(TyperGroup):
    """Verbs whose :class:`HermesEdgeError` becomes a message and an exit code.

    Interrupts (130), usage errors (2) and closed pipes are typer's own.
    """

    # The context's class lives in click, or in the copy of click that newer versions of typer hold.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse what is not UTF-8 before anything tries to print it."""
        for arg in args:
            if not arg.isascii() and arg != arg.encode("utf-8", "replace").decode("utf-8"):
                shown = arg.encode("utf-8", "backslashreplace").decode("utf-8")
                raise typer.BadParameter(f"an argument is not UTF-8: {_redacted(shown)}")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except _UsageError as error:
            # It quotes what it refuses: an address, where the verb before it was forgotten.
            error.message = _redacted(error.message)
            raise
        except HermesEdgeError as error:
            # What it quotes may come from a file.
            stderr().print(f"error: {without_controls(str(error))}", style="red")
            raise typer.Exit(error.exit_code) from None


def _redacted(text: str) -> str:
    from hermes_edge.sources.redact import redacted_text  # loads OpenCV

    return redacted_text(text)
