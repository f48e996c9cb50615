"""A bundle's engines on one device, shared by all sessions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hermes_edge.arguments import (
    check_function,
    check_text,
    optional_whole,
    path_of,
    token_ids,
    whole,
)
from hermes_edge.engines import Bundle
from hermes_edge.engines.backends import Backend, open_backend
from hermes_edge.engines.views import Array
from hermes_edge.errors import BundleError, SettingsError, SourceError
from hermes_edge.manifest import TOKENIZER_NAME, Manifest
from hermes_edge.memory.base import Scoring
from hermes_edge.memory.hermes import Reindexing, Smoothing
from hermes_edge.runtime.admission import Admission
from hermes_edge.runtime.factory import SessionFactory
from hermes_edge.runtime.limits import (
    DEFAULT_WORKSPACE_BYTES,
    budget_rows,
    check_budget,
    most_budget,
)
from hermes_edge.runtime.options import plan_stream
from hermes_edge.runtime.parts import SessionParts
from hermes_edge.runtime.probes import ProbeSource
from hermes_edge.runtime.resize import UInt8Array
from hermes_edge.runtime.restoring import restore_session
from hermes_edge.runtime.session import Session
from hermes_edge.runtime.text import TextCodec
from hermes_edge.runtime.turns import Claim
from hermes_edge.snapshots import StreamOptions
from hermes_edge.spec import MemorySpec

DEFAULT_RESERVE_TOKENS = 512


class Runtime:
    """Engines, embedding table and tokenizer of one bundle; holds no stream of its own.

    ::

        runtime = Runtime.load("engines/hermes-tiny")
        with runtime.session(budget_tokens=1000) as session:
            for frame in source:
                session.feed(frame.image, at=frame.time_s)
            print(session.ask("What happened last?").text)
    """

    def __init__(self, bundle: Bundle, backend: Backend, memory_bytes: int | None = None) -> None:
        self.bundle = bundle
        has_text = (bundle.path / TOKENIZER_NAME).exists()
        self.codec = TextCodec.open(bundle.path, self.manifest.video_token) if has_text else None
        admission = Admission(backend.device, memory_bytes)
        self._factory = SessionFactory(bundle, backend, self.codec, admission)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str = "cpu",
        backend: str = "onnxruntime",
        threads: int = 0,
        check_hashes: bool = True,
        memory_bytes: int | None = None,
    ) -> Runtime:
        """Open a bundle and its engines.

        Args:
            path: the bundle's folder.
            device: ``cpu``, ``cuda`` or ``cuda:N``.
            backend: ``onnxruntime``, or ``tensorrt`` with plans that were built on this machine.
            threads: of ONNX Runtime; 0 is one per core.
            check_hashes: read every file once more to compare its sha256.
            memory_bytes: limit for the slabs of all sessions together.

        Raises:
            SettingsError: an argument of another type, or out of range.
            BundleError: the bundle is damaged or does not fit the contract.
            EngineError: the device cannot be used.
            DependencyError: the device's backend is not installed.
        """
        folder = path_of("path", path)
        limit_bytes = optional_whole("memory_bytes", memory_bytes, least=1)
        return cls(
            Bundle.open(folder, check_hashes=check_hashes),
            open_backend(device, backend, threads),
            limit_bytes,
        )

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.bundle.manifest

    @property
    def call_in_flight_s(self) -> float:
        """Seconds that the present engine call has taken so far; 0 where there is none."""
        return self._factory.turns.in_flight_s

    def session(
        self,
        *,
        name: str = "the stream",
        budget_tokens: int | None = None,
        budget_bytes: int | None = None,
        policy: str = "hermes",
        scoring: Scoring | None = None,
        reindexing: Reindexing | None = None,
        smoothing: Smoothing | None = None,
        chunk_frames: int | None = None,
        reserve_tokens: int = DEFAULT_RESERVE_TOKENS,
        workspace_bytes: int = DEFAULT_WORKSPACE_BYTES,
        system: str | None = None,
        prefix_ids: Sequence[int] | None = None,
        probes: ProbeSource | None = None,
    ) -> Session:
        """A new stream; all its memory is allocated here.

        Args:
            name: of the stream, for messages.
            budget_tokens: visual rows that each layer may keep. By default 4,000, or what the
                model's positions allow.
            budget_bytes: the same, as bytes of keys and values over all layers.
            policy: one of :data:`hermes_edge.memory.POLICY_NAMES`.
            scoring: ``forward`` or ``embedding``, for the hermes policies.
            reindexing: ``lazy`` or ``eager``, for the hermes policies.
            smoothing: ``recursive`` or ``one-step``, for the hermes policies.
            chunk_frames: frames between two compactions; by default as exported.
            reserve_tokens: rows for a question with its answer, and for the probes.
            workspace_bytes: bound on one layer's attention matrix; sets the slices.
            system: system text, or the default one.
            prefix_ids: token ids before the video, instead of a rendered template.
            probes: token ids of the probes, instead of the guidance texts.

        Raises:
            BudgetError: the budget is smaller than a chunk, or larger than the positions allow, or
                does not fit beside the other sessions.
            SettingsError: an argument of another type, an unknown policy, or an empty chunk,
                reserve or workspace.
            BundleError: the policy needs a graph that the bundle does not have.
        """
        words = {"scoring": scoring, "reindexing": reindexing, "smoothing": smoothing}
        given = {word: value for word, value in words.items() if value is not None}
        check_text(name=name, policy=policy, **given)
        chunk_frames = optional_whole("chunk_frames", chunk_frames, least=1)
        reserve_tokens = whole("reserve_tokens", reserve_tokens, least=1)
        workspace_bytes = whole("workspace_bytes", workspace_bytes, least=1)
        budget_tokens = optional_whole("budget_tokens", budget_tokens)
        budget_bytes = optional_whole("budget_bytes", budget_bytes)
        manifest = self.manifest
        own = None if prefix_ids is None else token_ids("prefix_ids", prefix_ids)
        prefix = self.prefix_ids(system) if own is None else own
        # A memory without eviction has nothing to do at the end of a chunk: fill it to the frame.
        chunk = 1 if policy == "full" else chunk_frames or manifest.chunk_frames
        chunk_rows = chunk * manifest.tokens_per_frame
        most = most_budget(manifest.decoder, len(prefix), chunk_rows, reserve_tokens)
        budget = budget_rows(manifest, budget_tokens, budget_bytes, most)
        spec = MemorySpec(len(prefix), budget, chunk_rows, reserve_tokens)
        check_budget(manifest.decoder, spec)
        options = StreamOptions(
            policy=policy,
            scoring=scoring,
            reindexing=reindexing,
            smoothing=smoothing,
            budget_tokens=budget,
            chunk_frames=chunk,
            reserve_tokens=reserve_tokens,
            workspace_bytes=workspace_bytes,
            prefix_ids=prefix,
            own_probes=probes is not None,
        )
        parts = self.assemble(name, options, probes)
        parts.encoder.encode_prefix(prefix)
        return Session(parts)

    def restore(
        self,
        path: str | Path,
        *,
        stream: str | None = None,
        probes: ProbeSource | None = None,
        **wanted: object,
    ) -> Session:
        """The session that was saved, which goes on exactly where it was.

        Args:
            path: a snapshot, or a folder: the newest good one; the log says why no newer one.
            stream: name of the stream, where the folder holds several.
            probes: the argument ``probes`` of the session, where it had one.
            wanted: settings as of :meth:`session` that the snapshot must have been made with.

        Raises:
            SnapshotError: none is whole, of this bundle, and computes what it did when saved.
            SettingsError: the snapshot was made with other settings than those wanted, or an
                argument is of another type.
            BudgetError: its memory cannot be allocated here.
        """
        return restore_session(self, path_of("path", path), stream, probes, wanted).session

    def encode(self, frames: Sequence[UInt8Array]) -> Array:
        """Visual tokens [F*N, E] of frames, for :meth:`Session.feed_tokens` of several sessions.

        Args:
            frames: uint8 RGB [height, width, 3] of any size, at least one.

        Raises:
            SourceError: there is no frame, or one is not an image.
            BundleError: the bundle has no vision graph.
        """
        count = len(frames) if isinstance(frames, Sequence | np.ndarray) else None
        if not count:
            found = "none" if count == 0 else type(frames).__name__
            raise SourceError("no frames to encode", required="a list of at least one", found=found)
        encoder = self._factory.frame_encoder(Claim(), self.manifest.chunk_frames)
        if encoder is None:
            raise BundleError("this bundle has no vision graph", fix="Export a model that sees")
        return encoder.encode_all(frames)

    def assemble(
        self, name: str, options: StreamOptions, probes: ProbeSource | None
    ) -> SessionParts:
        """All that a session is made of, allocated and warmed up, with an empty memory.

        Raises:
            SettingsError, BudgetError, BundleError: as of :meth:`session`.
        """
        if probes is not None:
            check_function("probes", probes)
        return self._factory.parts(name, options, plan_stream(options, self.manifest), probes)

    def prefix_ids(self, system: str | None) -> tuple[int, ...]:
        """Token ids before the video; with None, of the default system text.

        Raises:
            SettingsError: the bundle has no tokenizer, or the text is not valid Unicode.
        """
        if system is not None:
            check_text(system=system)
        if self.codec is None:
            raise SettingsError(
                "this bundle has no tokenizer", required="prefix_ids", found="none given"
            )
        return tuple(self.codec.prefix_ids(system))
