"""TensorRT's module, imported late and never required."""

from __future__ import annotations

from typing import Any

from hermes_edge.errors import DependencyError, EngineError

_OLDEST = (10, 3)


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
    if version < _OLDEST:
        raise DependencyError(
            "this TensorRT is too old",
            required="10.3 or newer",
            found=tensorrt.__version__,
            fix="Upgrade JetPack to 6.2 or newer, or the package tensorrt",
        )
    return tensorrt


def make_logger(trt: Any, heard: list[str]) -> Any:
    """A logger that keeps warnings and errors instead of printing them."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # a class of a module that is imported late
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR, trt.ILogger.WARNING):
                heard.append(message)

    return Logger()


def no_gpu(what: str, heard: list[str]) -> EngineError:
    """The error where a factory of TensorRT hands out nothing."""
    return EngineError(
        f"TensorRT cannot make a {what}: there is no usable GPU",
        found="; ".join(heard[-3:]) or "no reason given",
        fix="See what is wrong with: hermes-edge doctor",
    )
