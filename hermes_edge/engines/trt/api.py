"""TensorRT's module, imported late and never required."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hermes_edge.errors import DependencyError, EngineError

OLDEST = (10, 3)
"""The oldest version that is supported: that of JetPack 6.2."""


def import_tensorrt() -> Any:
    """The module ``tensorrt``.

    Raises:
        DependencyError: it is not installed, its libraries are missing, or it is too old.
    """
    try:
        import tensorrt
    # Bindings whose libraries are missing or of another version raise what the loader raises.
    except (ImportError, OSError, RuntimeError) as error:
        raise DependencyError(
            "TensorRT cannot be imported",
            required="TensorRT 10.3 or newer with its Python bindings",
            found=str(error),
            fix="On a Jetson: sudo apt install python3-libnvinfer, and a virtual environment made "
            "with --system-site-packages. Elsewhere: pip install tensorrt",
        ) from None
    version = tuple(int(part) for part in tensorrt.__version__.split(".")[:2])
    if version < OLDEST:
        raise DependencyError(
            "this TensorRT is too old",
            required="10.3 or newer",
            found=tensorrt.__version__,
            fix="Upgrade JetPack to 6.2 or newer, or the package tensorrt",
        )
    return tensorrt


def make_logger(trt: Any, heard: list[str]) -> Any:
    """A logger that keeps warnings and errors instead of printing them."""

    wanted = (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR, trt.ILogger.WARNING)

    def log(self: Any, severity: Any, message: str) -> None:
        if severity in wanted:
            heard.append(message)

    return subclass(trt.ILogger, log)


def subclass(base: Any, *methods: Callable[..., Any]) -> Any:
    """An object of a class that is known when TensorRT is: its base, with these methods."""

    def make(self: Any) -> None:
        # The bindings require their own constructor, called by its name.
        base.__init__(self)

    members = {method.__name__: method for method in methods}
    return type(f"Our{base.__name__}", (base,), {**members, "__init__": make})()


def no_gpu(what: str, heard: list[str]) -> EngineError:
    """The error where a factory of TensorRT hands out nothing."""
    return EngineError(
        f"TensorRT cannot make a {what}: there is no usable GPU",
        found="; ".join(heard[-3:]) or "no reason given",
        fix="See what is wrong with: hermes-edge doctor",
    )
