"""Sessions put together: engines, staging and slabs of one bundle on one device."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from hermes_edge.contract import GraphName
from hermes_edge.engines import Bundle, Engine, View
from hermes_edge.engines.backends import Backend
from hermes_edge.runtime.admission import Admission
from hermes_edge.runtime.chunks import ChunkEncoder
from hermes_edge.runtime.compaction import Compactor
from hermes_edge.runtime.decoding import DecoderLimits, DecoderRunner
from hermes_edge.runtime.exclusive import Exclusive
from hermes_edge.runtime.frames import FrameEncoder
from hermes_edge.runtime.options import StreamPlan
from hermes_edge.runtime.parts import HistoryCell, SessionParts
from hermes_edge.runtime.probes import ProbeSource, bounded, guidance_source
from hermes_edge.runtime.scoring import Scorer
from hermes_edge.runtime.shapes import LargestCalls
from hermes_edge.runtime.store import KVStore
from hermes_edge.runtime.text import TextCodec
from hermes_edge.runtime.turns import Claim, Turns
from hermes_edge.snapshots import StreamOptions
from hermes_edge.spec import MemorySpec


class SessionFactory:
    """The engines, which all sessions share, and what each session has of its own."""

    def __init__(
        self, bundle: Bundle, backend: Backend, codec: TextCodec | None, admission: Admission
    ) -> None:
        """Raises BundleError or EngineError for an engine that cannot be used."""
        self._bundle, self._backend, self.codec = bundle, backend, codec
        self._admission = admission
        self.manifest = bundle.manifest
        self.turns = Turns()
        self.device = backend.device
        self._engines: dict[GraphName, Engine] = {}
        self._warm: set[tuple[LargestCalls, int]] = set()
        self._table = bundle.embeddings()
        for name in ("decoder", "score", "compact", "vision"):
            if name in self.manifest.graphs:
                self.engine(name)

    def parts(
        self, name: str, options: StreamOptions, plan: StreamPlan, probes: ProbeSource | None
    ) -> SessionParts:
        """Everything of a new session, allocated, its largest calls made once.

        Raises:
            BudgetError, EngineError: the device cannot hold it.
            BundleError: the policy needs a graph that the bundle does not have.
        """
        policy, spec, shape = plan.policy, plan.spec, plan.shape
        decoder, precision = self.manifest.decoder, self.manifest.precision
        claim, use = Claim(), Exclusive("the session", self.turns.wake)
        call = partial(self._call, claim)
        geometry = (call, self.device, decoder, precision)
        store, release = self._store(name, spec)
        rows = min(shape.slice_rows, spec.capacity_rows)
        limits = DecoderLimits(
            new_rows=max(rows, spec.reserve_rows), probe_rows=shape.both_probe_rows
        )
        runner = DecoderRunner(self.engine("decoder"), *geometry, limits)
        embedding = self.engine("embedding_probe") if policy.scoring == "embedding" else None
        most = (spec.capacity_rows, shape.both_probe_rows)

        def turn() -> AbstractContextManager[None]:
            # Before the first frame there is nothing to ask about.
            return self.turns.turn(claim, use if store.has_frames else None)

        @contextmanager
        def frame_turn() -> Iterator[None]:
            with turn():
                claim.go_on()
                yield

        scorer = Scorer(self.engine("score"), embedding, *geometry, most, frame_turn)
        compact = self.engine("compact")
        compactor = Compactor(compact, call, self.device, spec.capacity_rows, turn)
        used = any(policy.probe_kind(layer) for layer in range(decoder.layers))
        source = probes or guidance_source(
            self.codec, policy.name if used else None, shape.one_probe_rows
        )
        history = HistoryCell()
        encoder = ChunkEncoder(
            store,
            policy,
            runner,
            scorer,
            compactor,
            self._table,
            shape,
            lambda: bounded(source(history.last), shape.both_probe_rows),
            frame_turn,
            claim.go_on,
            lambda: time.monotonic() - claim.waited_s,
        )
        parts = SessionParts(
            manifest=self.manifest,
            options=options,
            release=release,
            use=use,
            turn=turn,
            frame_turn=frame_turn,
            turns=self.turns,
            claim=claim,
            store=store,
            policy=policy,
            runner=runner,
            encoder=encoder,
            frames=self.frame_encoder(claim, shape.slice_frames),
            table=self._table,
            codec=self.codec,
            shape=shape,
            history=history,
            eos_token_ids=self.manifest.eos_token_ids,
            width=decoder.embedding_width,
            bytes_per_row=2 * decoder.row_bytes(precision),
        )
        self._warm_up(parts)
        return parts

    def frame_encoder(self, claim: Claim, most_frames: int) -> FrameEncoder | None:
        """For ``most_frames`` at once; None where the bundle cannot see."""
        manifest = self.manifest
        if manifest.vision is None:
            return None
        output = (manifest.decoder.embedding_width, manifest.precision)
        return FrameEncoder(
            self.engine("vision"),
            partial(self._call, claim),
            self.device,
            manifest.vision,
            output,
            most_frames,
        )

    def _store(self, name: str, spec: MemorySpec) -> tuple[KVStore, Callable[[], object]]:
        """Slabs, and what counts them out; they are counted out, too, when they are no more."""
        decoder, precision = self.manifest.decoder, self.manifest.precision
        key = self._admission.admit(
            name, spec.slab_bytes(decoder, precision), spec.spare_bytes(decoder, precision)
        )
        try:
            store = KVStore(self.device, decoder, precision, spec)
        except BaseException:
            self._admission.release(key)
            raise
        return store, weakref.finalize(store, self._admission.release, key)

    def _warm_up(self, parts: SessionParts) -> None:
        """Claim the workspace, which the engines share, once for sessions of one shape."""
        largest = (parts.encoder.largest_calls(), parts.shape.slice_frames)
        if largest not in self._warm:
            # The decoder first: what the others need fits into its workspace.
            parts.encoder.warm_up(largest[0])
            if parts.frames is not None:
                parts.frames.warm_up()
            self._warm.add(largest)

    def engine(self, name: GraphName) -> Engine:
        """One graph's engine, made at its first use.

        Raises:
            BundleError: the bundle has no such graph.
            EngineError: the backend refuses it.
        """
        if name not in self._engines:
            self._engines[name] = self._backend.engine(self._bundle, name)
        return self._engines[name]

    def _call(
        self,
        claim: Claim,
        engine: Engine,
        inputs: Mapping[str, View],
        outputs: Mapping[str, View],
    ) -> None:
        with self.turns.turn(claim):
            engine.run(inputs, outputs)
            # A GPU's call returns before it is done: a question would wait for all that is queued,
            # and nobody would see one that hangs.
            self.device.synchronize()
