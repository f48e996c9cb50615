"""Open a bundle and compile every graph of it: python engines/check.py BUNDLE [DEVICE]."""

import sys
import time

from hermes_edge.engines import Bundle
from hermes_edge.errors import HermesEdgeError


def check(path: str, device: str = "cpu") -> None:
    """Print each graph, its number of tensors and the time that compiling it took."""
    bundle = Bundle.open(path)
    for name in bundle.manifest.graphs:
        began = time.perf_counter()
        engine = bundle.engine(name, device)
        tensors = len(engine.graph.inputs) + len(engine.graph.outputs)
        print(f"{name}: {tensors} tensors, ready in {time.perf_counter() - began:.2f} s")


if __name__ == "__main__":
    try:
        check(*sys.argv[1:])
    except HermesEdgeError as error:
        sys.exit(str(error))
