"""Hugging Face checkpoint to bundle; the only part of the package that needs torch."""

from importlib.util import find_spec

from hermes_edge.errors import DependencyError

_NEEDED = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "huggingface_hub")

if _missing := [name for name in _NEEDED if find_spec(name) is None]:
    raise DependencyError(
        "exporting needs more packages",
        required=", ".join(_NEEDED),
        found=f"no {', '.join(_missing)}",
        fix="Install them with: pip install 'hermes-edge[export]'",
    )
else:
    # Behind the check, so that a missing package is named instead of failing an import.
    from hermes_edge.export.exporter import export_checkpoint
    from hermes_edge.export.parity import verify_bundle
    from hermes_edge.export.progress import NoProgress, Progress
    from hermes_edge.export.random_checkpoint import make_random_checkpoint

__all__ = ["NoProgress", "Progress", "export_checkpoint", "make_random_checkpoint", "verify_bundle"]
