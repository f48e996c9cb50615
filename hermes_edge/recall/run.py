"""The course of the recall benchmark: films are made once, then seen under every memory."""

from __future__ import annotations

import random
import re
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import active_children, get_context
from pathlib import Path

from hermes_edge.bench.machine import describe_machine, usable_cores
from hermes_edge.errors import BudgetError, BundleError, EngineError, SettingsError
from hermes_edge.manifest import MANIFEST_NAME, sha256_of
from hermes_edge.recall.policies import (
    FULL,
    MOST_CHUNK_FRAMES,
    POLICIES,
    RESERVE_TOKENS,
    Answered,
    Film,
    answer_film,
    check_policies,
)
from hermes_edge.recall.records import Asked, CellKey, Result
from hermes_edge.runtime import Runtime
from hermes_edge.synthetic import SPLITS, Question, draw_stream, make_stream, pick_questions

TRAINING_FRAMES = 48
"""Length of hermes-tiny's longest training streams; budgets are shares of their visual tokens."""

BUDGET_SHARES = (0.05, 0.1, 0.2, 0.32, 0.5, 1.0)
"""The paper's 32 % among them."""

_CHOICE_SHARE = 0.25
_MOMENTS = 4


@dataclass(frozen=True, slots=True)
class Group:
    """Streams of one length; each gets about this many questions."""

    frames: int
    streams: int
    questions: int


def parse_group(text: str) -> Group:
    """``48x120x12``: frames, streams, questions.

    Raises:
        SettingsError: another form.
    """
    match = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})x([0-9]{1,6})", text.strip())
    if match is None:
        raise SettingsError(
            "unknown streams",
            required="FRAMESxSTREAMSxQUESTIONS such as 48x120x12",
            found=repr(text),
        )
    frames, streams, questions = map(int, match.groups())
    return Group(frames, streams, questions)


@dataclass(frozen=True, slots=True)
class RecallSettings:
    """What is asked of whom.

    Attributes:
        split, seed: the streams' seeds are those of the split from ``seed`` on.
        budget_shares: of the visual tokens of ``TRAINING_FRAMES`` frames.
        threads: of the engines, in each process; 0 shares the cores among the jobs.
        jobs: processes that share the streams; the result does not depend on it.
    """

    bundle: Path
    split: str = "held-out"
    seed: int = 0
    policies: tuple[str, ...] = tuple(POLICIES)
    budget_shares: tuple[float, ...] = BUDGET_SHARES
    groups: tuple[Group, ...] = field(
        default=(Group(48, 120, 12), Group(120, 40, 12), Group(480, 24, 16))
    )
    threads: int = 0
    jobs: int = 1


Progress = Callable[[int, int, str], None]
"""Films seen, films in all, and what is going on."""


def run_recall(settings: RecallSettings, progress: Progress) -> Result:
    """Ask every question under every policy and budget.

    Raises:
        SettingsError: an unknown policy or split, a share out of range, no stream.
        BudgetError: a budget below one frame, or one that does not fit the model's positions.
        EngineError: one of several jobs has been ended.
        BundleError: the bundle cannot see, has no tokenizer, or its weights are random.
    """
    _check(settings)
    runtime = Runtime.load(settings.bundle, threads=settings.threads)
    _check_bundle(runtime)
    cells = _cells(settings, runtime)
    films = sum(group.streams for group in settings.groups)
    asked: list[Asked] = []
    answers: dict[CellKey, list[bool | None]] = {key: [] for key in cells}
    progress(0, films, "streams")
    seen = _see_all(runtime, settings, cells)
    for done, (questions, found) in enumerate(seen, start=1):
        asked += questions
        for key, right in zip(cells, found, strict=True):
            answers[key] += right
        progress(done, films, "streams")
    machine = describe_machine()
    return Result(
        asked=tuple(asked),
        cells={key: tuple(found) for key, found in answers.items()},
        bundle=runtime.manifest.model_id,
        bundle_sha256=sha256_of(runtime.bundle.path / MANIFEST_NAME),
        seed=settings.seed,
        settings={
            "split": settings.split,
            "budget_shares": list(settings.budget_shares),
            "training_frames": TRAINING_FRAMES,
            "tokens_per_frame": runtime.manifest.tokens_per_frame,
            "groups": [asdict(group) for group in settings.groups],
            "chunk_frames": MOST_CHUNK_FRAMES,
            "reserve_tokens": RESERVE_TOKENS,
        },
        machine=machine,
    )


Seen = tuple[list[Asked], list[Answered]]
"""The questions of one stream, and each cell's answers."""


def _see_all(
    runtime: Runtime, settings: RecallSettings, cells: Sequence[CellKey]
) -> Iterator[Seen]:
    streams = list(_streams(settings))
    if settings.jobs == 1:
        yield from (_see(runtime, cells, stream) for stream in streams)
        return
    # A forked process would share the engines' threads, which do not survive the fork.
    spawn, start = get_context("spawn"), (settings, tuple(cells))
    with ProcessPoolExecutor(settings.jobs, spawn, _start, start) as pool:
        try:
            # Ctrl-C reaches the whole group, and processes that still load would each tell of it:
            # they inherit that it is blocked, and the first one answers for all.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                # Not map(): interrupted, it cancels, and Python 3.11 tells a cancelled future of
                # the process that ended, which is a traceback in its thread.
                futures = deque(pool.submit(_see_one, stream) for stream in streams)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            while futures:
                yield futures.popleft().result()
        except BrokenExecutor as error:
            raise EngineError(
                "a process that saw streams has ended",
                found=str(error),
                fix="If memory was short: lower --jobs",
            ) from None
        finally:
            # Ctrl-C does not wait for streams half seen; at the end nobody works any more.
            for child in active_children():
                child.terminate()


_here: list[tuple[Runtime, tuple[CellKey, ...]]] = []
"""Of a process of the pool: its runtime and the cells."""


def _start(settings: RecallSettings, cells: tuple[CellKey, ...]) -> None:
    threads = settings.threads or max(usable_cores() // settings.jobs, 1)
    runtime = Runtime.load(settings.bundle, threads=threads, check_hashes=False)
    _here.append((runtime, cells))


def _see_one(stream: tuple[int, Group]) -> Seen:
    ((runtime, cells),) = _here
    return _see(runtime, cells, stream)


def _see(runtime: Runtime, cells: Sequence[CellKey], stream: tuple[int, Group]) -> Seen:
    """One stream under every policy and budget."""
    seed, group = stream
    film, questions = _film(runtime, seed, group)
    answers = [answer_film(runtime, key.policy, key.budget_tokens, film) for key in cells]
    return [_record(seed, group.frames, question) for question in questions], answers


def _check(settings: RecallSettings) -> None:
    check_policies(settings.policies)
    if settings.split not in SPLITS:
        raise SettingsError("unknown split", required=", ".join(SPLITS), found=repr(settings.split))
    if settings.jobs < 1:
        raise SettingsError("jobs is out of range", required="at least 1", found=settings.jobs)
    for share in settings.budget_shares:
        if not 0 < share <= 1:
            raise SettingsError(
                "a budget is out of range", required="above 0 % and at most 100 %", found=share
            )
    streams = sum(group.streams for group in settings.groups)
    seeds = len(SPLITS[settings.split])
    if settings.seed + streams > seeds:
        raise SettingsError(
            f"the split {settings.split} has no such streams",
            required=f"seed and streams within {seeds}",
            found=f"{settings.seed} + {streams}",
        )
    for group in settings.groups:
        if min(group.frames, group.streams, group.questions) < 1:
            raise SettingsError(
                "streams are out of range", required="at least 1 of each", found=asdict(group)
            )


def _check_bundle(runtime: Runtime) -> None:
    manifest = runtime.manifest
    for lacks, found in (
        (manifest.vision is None, "no vision graph"),
        (runtime.codec is None, "no tokenizer"),
        (manifest.random_weights, "random weights"),
    ):
        if lacks:
            raise BundleError(
                f"{runtime.bundle.path} cannot answer questions about a video",
                required="a trained model that sees and reads",
                found=f"{manifest.model_id} with {found}",
                fix="Name another bundle, or none for hermes-tiny",
            )


def _cells(settings: RecallSettings, runtime: Runtime) -> list[CellKey]:
    """Policies by budget; what never evicts has one cell, of budget 0."""
    size = runtime.manifest.tokens_per_frame
    budgets = []
    for share in settings.budget_shares:
        budgets.append(round(share * TRAINING_FRAMES * size))
        if budgets[-1] < size:
            raise BudgetError(
                f"a budget of {share:.1%} is smaller than a frame",
                required=f"at least {size} of {TRAINING_FRAMES * size} tokens",
                found=budgets[-1],
                fix="Raise the budget",
            )
    cells = []
    for policy in settings.policies:
        cells += [CellKey(policy, budget) for budget in ([0] if policy == FULL else budgets)]
    return cells


def _streams(settings: RecallSettings) -> Iterator[tuple[int, Group]]:
    seeds = iter(SPLITS[settings.split][settings.seed :])
    for group in settings.groups:
        for _ in range(group.streams):
            yield next(seeds), group


def _film(runtime: Runtime, seed: int, group: Group) -> tuple[Film, list[Question]]:
    """A stream's visual tokens, and its questions at a few moments, the last frame among them."""
    stream = make_stream(seed, group.frames)
    last = group.frames - 1
    moments = sorted({last - last * step // (_MOMENTS + 1) for step in range(_MOMENTS)})
    questions = pick_questions(
        stream,
        group.questions,
        random.Random(seed),
        frames=moments,
        choice_share=_CHOICE_SHARE,
    )
    by_moment: dict[int, list[Question]] = {}
    for question in questions:
        by_moment.setdefault(question.asked_frame, []).append(question)
    tokens = runtime.encode([*draw_stream(stream)])
    return Film(tokens, by_moment), questions


def _record(seed: int, frames: int, question: Question) -> Asked:
    return Asked(
        stream_seed=seed,
        stream_frames=frames,
        kind=question.kind,
        choice=question.choice,
        asked_frame=question.asked_frame,
        age_frames=question.age_frames,
        text=question.text,
        answer=question.answer,
    )
