"""The one protocol behind which every backend stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from hermes_edge.contract import GraphSpec
from hermes_edge.engines.views import View


class Engine(Protocol):
    """One compiled graph on one backend. It holds no session: state comes in and goes out."""

    @property
    def graph(self) -> GraphSpec:
        """The surface of the graph, as in the contract."""

    def run(self, inputs: Mapping[str, View], outputs: Mapping[str, View]) -> None:
        """Compute; every input and output is read or written at its own address, uncopied.

        Raises:
            EngineError: the backend failed, with its own words.
        """
