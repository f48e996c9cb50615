"""Calls that repeat address for address, replayed as CUDA graphs.

A step is many short kernels, which a graph launches at once. Not yet run on hardware.

The first call with its bindings runs plainly: TensorRT finishes what a change of shapes has
deferred in the next plain call, and bindings that come once are not worth a graph. The second is
captured, and it and all further ones are launched. What is captured holds addresses and shapes, so
compaction, which gives slabs new addresses, leads to a new graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hermes_edge.engines.cuda import CudaDevice, CudaGraph
from hermes_edge.engines.views import View
from hermes_edge.errors import EngineError

# Of sessions that take turns; a session leaves one behind with every compaction.
_MOST_GRAPHS = 4

_Addresses = tuple[tuple[str, int], ...]


class Replay:
    """The repeated calls of one execution context.

    Attributes:
        plain_runs: calls that went through TensorRT.
        captures: graphs that were made.
        launches: calls that were a graph's.
    """

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._shapes: Mapping[str, tuple[int, ...]] = {}
        # Of these shapes, by addresses; None: they have come once. The newest are the last.
        self._graphs: dict[_Addresses, CudaGraph | None] = {}
        self.plain_runs = self.captures = self.launches = 0

    def run(self, tensors: Mapping[str, View], enqueue: Callable[[int], None]) -> None:
        """One call.

        Args:
            tensors: everything that is bound.
            enqueue: queues the call on a stream, given its address.

        Raises:
            EngineError: TensorRT or CUDA refuses.
        """
        shapes = {name: view.shape for name, view in tensors.items()}
        if shapes != self._shapes:
            # What a context holds for its shapes changes with them, under graphs that use it.
            self._graphs.clear()
            self._shapes = shapes
        addresses = tuple((name, view.address) for name, view in tensors.items())
        if addresses not in self._graphs:
            enqueue(self._device.stream)
            self.plain_runs += 1
            self._keep(addresses, None)
            return
        graph = self._graphs[addresses]
        if graph is None:
            graph = self._capture(enqueue)
            self.captures += 1
        self._keep(addresses, graph)
        graph.launch()
        self.launches += 1

    def _capture(self, enqueue: Callable[[int], None]) -> CudaGraph:
        # The plain call has to be over: TensorRT may defer work of it.
        self._device.synchronize()
        try:
            return self._device.capture(enqueue)
        except EngineError as error:
            raise EngineError(
                "a step of the decoder cannot be captured as a CUDA graph",
                found=str(error),
                fix="Export again without --static-decode",
            ) from error

    def _keep(self, addresses: _Addresses, graph: CudaGraph | None) -> None:
        self._graphs.pop(addresses, None)
        self._graphs[addresses] = graph
        if len(self._graphs) > _MOST_GRAPHS:
            del self._graphs[next(iter(self._graphs))]
