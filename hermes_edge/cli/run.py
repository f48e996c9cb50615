"""``hermes-edge run``: a video is streamed, questions are answered at their times."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hermes_edge.cli.transcript import JsonTranscript, TextTranscript, Transcript
from hermes_edge.errors import SettingsError
from hermes_edge.service.questions import feed_until_due, parse_question
from hermes_edge.settings import Settings, load_settings

if TYPE_CHECKING:
    from hermes_edge.runtime import Runtime, SamplingParams, Session


def run(
    video: Annotated[Path, typer.Argument(help="Video file, or folder of images.")],
    ask: Annotated[
        list[str],
        typer.Option(
            metavar="TIME QUESTION", help='Such as "0:12 What is happening?"; may be repeated.'
        ),
    ],
    bundle: Annotated[Path | None, typer.Option(help="Folder of the bundle.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings file.", show_default="./hermes-edge.toml")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="What the memory keeps.")] = None,
    scoring: Annotated[
        str | None, typer.Option(help="forward or embedding, of the hermes policies.")
    ] = None,
    reindexing: Annotated[
        str | None, typer.Option(help="lazy or eager, of the hermes policies.")
    ] = None,
    smoothing: Annotated[
        str | None, typer.Option(help="recursive or one-step, of the hermes policies.")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Tokens a layer, or 64MiB, 0.5GiB.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second of video.")] = None,
    chunk_frames: Annotated[int | None, typer.Option(help="Frames encoded at once.")] = None,
    reserve_tokens: Annotated[
        int | None, typer.Option(help="Rows kept free for a question and its answer.")
    ] = None,
    slice_workspace: Annotated[
        str | None, typer.Option(help="For the attention of one pass, such as 64MiB.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System text.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus of the sampling.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="1 is none.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the sampling.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End an answer before this text.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N.")] = None,
    backend: Annotated[
        str | None, typer.Option(help="onnxruntime, or tensorrt with plans of hermes-edge build.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="0 is one per core.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document per line.")
    ] = False,
) -> None:
    """Stream VIDEO and answer questions at their times. Streaming ends with the last question."""
    settings = load_settings(
        {
            "config": config,
            "bundle": bundle,
            "policy": policy,
            "scoring": scoring,
            "reindexing": reindexing,
            "smoothing": smoothing,
            "budget": budget,
            "fps": fps,
            "chunk_frames": chunk_frames,
            "reserve_tokens": reserve_tokens,
            "slice_workspace": slice_workspace,
            "system": system,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "repetition_penalty": repetition_penalty,
            "seed": seed,
            "stop": stop or None,
            "device": device,
            "backend": backend,
            "threads": threads,
        }
    )
    transcript = JsonTranscript() if as_json else TextTranscript()
    run_stream(video, ask, settings, transcript)


def run_stream(video: Path, asked: list[str], settings: Settings, transcript: Transcript) -> None:
    """Open everything, stream, answer, and close with a summary."""
    from hermes_edge.runtime import open_source

    questions = [parse_question(text) for text in asked]
    params = sampling_params(settings)
    with open_source(video, settings.fps) as source:
        runtime = load_runtime(settings)
        with open_session(runtime, settings) as session:
            for due in feed_until_due(session, source, questions):
                transcript.question(due, session)
                answers = session.ask(due.question.text, params, stream=True)
                for piece in answers:
                    transcript.piece(piece)
                transcript.answer(due, answers.answer)
            transcript.summary(runtime.manifest, session, source.ended_early)


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
    )


def open_session(runtime: Runtime, settings: Settings) -> Session:
    """A session as the settings say."""
    budget = settings.budget
    return runtime.session(
        budget_tokens=budget.tokens if budget is not None else None,
        budget_bytes=budget.nbytes if budget is not None else None,
        policy=settings.policy,
        scoring=settings.scoring,
        reindexing=settings.reindexing,
        smoothing=settings.smoothing,
        chunk_frames=settings.chunk_frames,
        reserve_tokens=settings.reserve_tokens,
        workspace_bytes=settings.slice_workspace,
        system=settings.system,
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
