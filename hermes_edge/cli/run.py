"""``hermes-edge run``: streams are watched, and questions about them answered."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import typer

from hermes_edge.cli import options
from hermes_edge.cli.output import stderr, stdout, warn
from hermes_edge.cli.signals import stop_on_signals
from hermes_edge.cli.transcript import (
    JsonTranscript,
    SharedTranscript,
    TextTranscript,
    Transcript,
    Warn,
)
from hermes_edge.errors import EngineError, HermesEdgeError, SettingsError
from hermes_edge.service.heap import share_one_arena
from hermes_edge.service.logs import logs_on_stderr
from hermes_edge.settings import Settings, load_settings

if TYPE_CHECKING:
    from hermes_edge.runtime import Runtime, SamplingParams
    from hermes_edge.service.service import Service
    from hermes_edge.service.stream import Stream

log = logging.getLogger("hermes_edge.run")


def run(
    sources: options.Sources,
    ask: options.Ask = None,
    stdin: options.Stdin = False,
    bundle: options.Bundle = None,
    config: options.Config = None,
    policy: options.Policy = None,
    scoring: options.Scoring = None,
    reindexing: options.Reindexing = None,
    smoothing: options.Smoothing = None,
    budget: options.Budget = None,
    stream_budget: options.StreamBudget = None,
    fps: options.Fps = None,
    chunk_frames: options.ChunkFrames = None,
    reserve_tokens: options.ReserveTokens = None,
    slice_workspace: options.SliceWorkspace = None,
    system: options.System = None,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    repetition_penalty: options.RepetitionPenalty = None,
    seed: options.Seed = None,
    stop: options.Stop = None,
    device: options.Device = None,
    backend: options.Backend = None,
    threads: options.Threads = None,
    memory_limit: options.MemoryLimit = None,
    backpressure: options.Backpressure = None,
    skip_still: options.SkipStill = None,
    snapshots: options.Snapshots = None,
    save_every: options.SaveEvery = None,
    keep: options.Keep = None,
    silent_after: options.SilentAfter = None,
    engine_timeout: options.EngineTimeout = None,
    metrics_port: options.MetricsPort = None,
    metrics_address: options.MetricsAddress = None,
    log_json: options.LogJson = None,
    as_json: options.AsJson = False,
) -> None:
    """Watch SOURCES and answer questions.

    A stream ends with its last question, else a file with itself and a live source never.
    Ctrl-C and SIGTERM end all; memories are saved, and the exit code is 0. A second one ends
    the process at once.
    """
    given = {key: value for key, value in locals().items() if key in Settings.model_fields}
    with _errors_as_documents(bool(log_json)):
        settings = load_settings({name: value for name, value in given.items() if value != []})
    with _errors_as_documents(settings.log_json):
        run_streams(sources, ask or [], settings, from_stdin=stdin, as_json=as_json)


@contextmanager
def _errors_as_documents(wanted: bool) -> Iterator[None]:
    """What ends ``run`` as a log line: whoever reads documents from stderr can read no other."""
    try:
        yield
    except HermesEdgeError as error:
        if not wanted:
            raise
        with logs_on_stderr(as_json=True, verbose=False):
            log.critical("%s", error)
        raise typer.Exit(error.exit_code) from None


def run_streams(
    texts: list[str], asks: list[str], settings: Settings, *, from_stdin: bool, as_json: bool
) -> None:
    """Open everything, watch, answer, and close with a summary of each stream.

    Raises:
        HermesEdgeError: something cannot be opened, or a stream has failed; then the others went
            on to their ends.
    """
    from hermes_edge.cli.stdin import ask_from_stdin
    from hermes_edge.cli.streams import (
        Asked,
        check_budgets,
        check_names,
        check_questions,
        locked_folders,
        open_streams,
        parse_addresses,
    )
    from hermes_edge.service.questions import parse_question

    share_one_arena()
    addresses = parse_addresses(texts)
    if settings.snapshots is not None:
        check_names(addresses)
    questions = [parse_question(text, [a.name for a in addresses]) for text in asks]
    check_questions(questions, addresses)
    check_budgets(settings.stream_budget, addresses)
    runs_on = any(address.live for address in addresses) or settings.snapshots is not None
    asked = Asked(questions, sampling_params(settings), to_the_end=from_stdin)
    say = log.warning if settings.log_json else warn
    transcript = _transcript(as_json, say, shared=len(addresses) > 1 or runs_on or from_stdin)
    table = (runs_on or len(addresses) > 1) and not as_json and stdout().is_terminal
    verbose = runs_on or settings.metrics_port is not None
    with ExitStack() as opened:
        opened.enter_context(logs_on_stderr(as_json=settings.log_json, verbose=verbose))
        # From here on, because a model loads for a while: what is restored is not left in between.
        stop = opened.enter_context(stop_on_signals())
        # A camera that is not there yet ends neither the other streams nor a saved memory.
        insists = len(addresses) > 1 or settings.snapshots is not None
        sources = [
            (address, opened.enter_context(address.open(settings.fps, insists=insists)))
            for address in addresses
        ]
        folders = opened.enter_context(locked_folders(addresses, settings.snapshots))
        runtime = load_runtime(settings)
        with _watched_start(runtime, settings):
            streams = open_streams(sources, folders, runtime, settings, asked, transcript)
        for stream in streams:
            opened.callback(stream.close)
        with _service(runtime, streams, settings, table=table) as (service, look):
            if from_stdin:
                ask_from_stdin(service, transcript, say)
            service.wait(stop, look)
        for stream in streams:
            if stream.error is None:
                transcript.summary(runtime.manifest, stream)
    _raise_failures([stream for stream in streams if stream.error is not None])


def _raise_failures(failed: list[Stream]) -> None:
    """End with the first one's error; where the log has it already, without its words."""
    if not failed or (error := failed[0].error) is None:
        return
    # Nobody is there to read that a pipe is closed, and what is no Exception wants to end it all.
    if not failed[0].told or isinstance(error, BrokenPipeError) or not isinstance(error, Exception):
        raise error
    kind = type(error) if isinstance(error, HermesEdgeError) else HermesEdgeError
    raise kind(
        "not every stream did what it was asked",
        found=", ".join(stream.name for stream in failed),
        fix="The lines above say why",
    )


def load_runtime(settings: Settings) -> Runtime:
    """The runtime of the bundle that the settings name.

    Raises:
        SettingsError: they name none.
        BundleError, EngineError, DependencyError: as of :meth:`Runtime.load`.
    """
    from hermes_edge.runtime import Runtime

    if settings.bundle is None:
        raise SettingsError(
            "no bundle is given",
            required="--bundle, HERMES_EDGE_BUNDLE or bundle in the settings file",
            fix="Make one with: hermes-edge export CHECKPOINT -o BUNDLE",
        )
    return Runtime.load(
        settings.bundle,
        device=settings.device,
        backend=settings.backend,
        threads=settings.threads,
        memory_bytes=settings.memory_limit,
    )


def sampling_params(settings: Settings) -> SamplingParams:
    """How answers are decoded."""
    from hermes_edge.runtime import SamplingParams

    return SamplingParams(
        max_new_tokens=settings.max_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        repetition_penalty=settings.repetition_penalty,
        stop=settings.stop,
        seed=settings.seed,
    )


def _transcript(as_json: bool, say: Warn, *, shared: bool) -> Transcript:
    if as_json:
        return JsonTranscript()
    return SharedTranscript(say) if shared else TextTranscript(say)


@contextmanager
def _service(
    runtime: Runtime, streams: list[Stream], settings: Settings, *, table: bool
) -> Iterator[tuple[Service, Callable[[], object] | None]]:
    """Streams that run, with metrics where they are wanted; and what keeps a table alive, if any.

    Raises:
        SettingsError: the metrics' port is taken.
    """
    from hermes_edge.cli.table import StreamTable
    from hermes_edge.service.metrics import StreamCollector, serve_metrics
    from hermes_edge.service.service import Service

    with ExitStack() as opened:
        service = Service(
            runtime,
            streams,
            partial(_leave_hanging, as_document=settings.log_json),
            silent_after_s=settings.silent_after,
            engine_timeout_s=settings.engine_timeout,
        )
        opened.callback(service.stop)
        if settings.metrics_port is not None:
            collector = StreamCollector(service.statuses, lambda: service.call_in_flight_s)
            end = serve_metrics(collector, settings.metrics_port, settings.metrics_address)
            opened.callback(end)
        service.start()
        drawn = opened.enter_context(StreamTable(service.statuses)) if table else None
        yield service, drawn.look if drawn is not None else None


@contextmanager
def _watched_start(runtime: Runtime, settings: Settings) -> Iterator[None]:
    """Before there are streams, memories call the engines too, and may hang."""
    from hermes_edge.service.watchdog import Watchdog

    dog = Watchdog(
        dict,
        lambda: runtime.call_in_flight_s,
        partial(_leave_hanging, as_document=settings.log_json),
        silent_after_s=settings.silent_after,
        engine_timeout_s=settings.engine_timeout,
    )
    with closing(dog):
        yield


def _leave_hanging(_: float, as_document: bool) -> None:
    # Nothing in this process can end the call, or a thread that waits for it.
    # The watchdog's line has said for how long.
    try:
        if not as_document:
            said = "error: the process ends, because nothing else can end that call"
            stderr().print(said, style="red")
    finally:  # though nobody may be there to read
        os._exit(EngineError.exit_code)
