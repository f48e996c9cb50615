"""Questions about a stream, with answers that follow from its scenes and never from a model.

| kind | form | about |
|---|---|---|
| ``now`` | ``What is it now?`` · ``What colour is it now?`` | the frame on view |
| ``recall-colour`` | ``What colour was the ring?`` | a thing no longer on view |
| ``recall-before`` | ``What came before the ring?`` | the scene before the only one with a ring |
| ``recall-first`` | ``What came first?`` | the first scene |
| ``existence`` | ``Did a ring appear?`` | any scene but the one on view |
| ``count`` | ``How many times did a ring appear?`` | scenes, as a word |
| ``order`` | ``Which came first, the ring or the star?`` | two things shown in one scene each |

Asked at frame t, a question is about frames 0 to t. One that has several true answers is not asked.
In the multiple-choice form four options follow the question and the answer is ``(A)`` to ``(D)``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hermes_edge.errors import SettingsError
from hermes_edge.synthetic.world import COLOURS, DIGITS, SHAPES, THINGS, Scene, Stream

KINDS = (
    "now",
    "recall-colour",
    "recall-before",
    "recall-first",
    "existence",
    "count",
    "order",
)
NOTHING = "nothing"
LETTERS = ("(A)", "(B)", "(C)", "(D)")
NUMBERS = DIGITS[:5]


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its truth.

    Attributes:
        kind: one of :data:`KINDS`.
        text: as a user would ask it, options included.
        answer: the whole answer, one word.
        asked_frame: the newest frame seen when it is asked.
        evidence_frame: the newest frame seen of the scene that tells the answer: of the last with
            the thing for its colour and existence. Where several must be remembered, of the
            oldest: the first with the thing for a count, the scene before, the older of two. None
            where the answer is that something never was.
        choice: whether it is multiple choice.
    """

    kind: str
    text: str
    answer: str
    asked_frame: int
    evidence_frame: int | None
    choice: bool = False

    @property
    def age_frames(self) -> int | None:
        """How long ago the evidence was seen."""
        return None if self.evidence_frame is None else self.asked_frame - self.evidence_frame


def make_question(
    stream: Stream, kind: str, frame: int, chance: random.Random, choice: bool = False
) -> Question | None:
    """A question of a kind that can be asked at a frame, or None where there is none.

    Args:
        stream: what has been filmed.
        kind: one of :data:`KINDS`.
        frame: when it is asked.
        chance: picks among the questions that are possible.
        choice: in multiple-choice form, where the kind has one.

    Raises:
        SettingsError: an unknown kind, or a frame that the stream does not have.
    """
    _check(stream, (kind,), (frame,))
    seen = Seen(stream, frame)
    question = _MAKERS[kind](seen, chance)
    if question is None or not choice:
        return question
    return _with_options(question, chance)


def pick_questions(
    stream: Stream,
    count: int,
    chance: random.Random,
    *,
    kinds: Sequence[str] = KINDS,
    frames: Sequence[int] | None = None,
    choice_share: float = 0.25,
) -> list[Question]:
    """About ``count`` questions, kinds and times drawn evenly, in the order of their times.

    Args:
        stream: what has been filmed.
        count: how many are tried; those that cannot be asked where they fall are left out.
        chance: of kinds, times and subjects.
        kinds: which kinds.
        frames: when questions may be asked; any frame by default.
        choice_share: share asked in multiple-choice form, of the kinds that have one.

    Raises:
        SettingsError: an unknown kind, or a frame that the stream does not have.
    """
    moments = range(stream.frames) if frames is None else frames
    _check(stream, kinds, moments)
    picked = []
    for _ in range(count):
        kind, frame = chance.choice(kinds), chance.choice(moments)
        choice = chance.random() < choice_share
        question = make_question(stream, kind, frame, chance, choice)
        if question is not None:
            picked.append(question)
    return sorted(picked, key=lambda question: question.asked_frame)


def _check(stream: Stream, kinds: Sequence[str], frames: Sequence[int]) -> None:
    for kind in kinds:
        if kind not in _MAKERS:
            raise SettingsError(
                "unknown kind of question", required=", ".join(KINDS), found=repr(kind)
            )
    for frame in frames:
        if not 0 <= frame < stream.frames:
            raise SettingsError(
                "the frame is outside of the stream",
                required=f"0 to {stream.frames - 1}",
                found=frame,
            )


class Seen:
    """What a stream has shown up to a frame.

    Attributes:
        scenes: up to the one on view, which is also ``now``.
        where: indices of the scenes in which a thing was, by thing, oldest first.
        colours: every colour that it had.
    """

    def __init__(self, stream: Stream, frame: int) -> None:
        self.frame = frame
        current = stream.scene_at(frame)
        self.scenes: tuple[Scene, ...] = stream.scenes[: current + 1]
        self.now = self.scenes[-1]
        self.where: dict[str, list[int]] = {}
        self.colours: dict[str, set[str]] = {}
        for index, scene in enumerate(self.scenes):
            for sight in scene.sights:
                self.where.setdefault(sight.thing, []).append(index)
                self.colours.setdefault(sight.thing, set()).add(sight.colour)

    def last_frame(self, scene: int) -> int:
        """Newest frame of a scene that has been seen."""
        return min(self.scenes[scene].last_frame, self.frame)

    def before(self, thing: str) -> str | None:
        """The thing of the scene before the only one with ``thing``; None where that is unclear."""
        places = self.where.get(thing, [])
        if len(places) != 1 or places[0] == 0:
            return None
        here, there = self.scenes[places[0]].sights, self.scenes[places[0] - 1].sights
        return there[0].thing if len(here) == len(there) == 1 else None

    def once(self) -> list[str]:
        """Things that were in one scene only, oldest first."""
        return [thing for thing, places in self.where.items() if len(places) == 1]


Maker = Callable[[Seen, random.Random], Question | None]


def _now(seen: Seen, chance: random.Random) -> Question:
    sights = seen.now.sights
    if len(sights) == 2:
        sight = chance.choice(sights)
        text, answer = f"What colour is the {sight.thing} now?", sight.colour
    elif not sights:
        text, answer = "What is it now?", NOTHING
    elif chance.random() < 0.5:
        text, answer = "What is it now?", sights[0].thing
    else:
        text, answer = "What colour is it now?", sights[0].colour
    return Question("now", text, answer, seen.frame, seen.frame)


def _recall_colour(seen: Seen, chance: random.Random) -> Question | None:
    things = [
        thing
        for thing, colours in seen.colours.items()
        if len(colours) == 1 and not seen.now.shows(thing)
    ]
    if not things:
        return None
    thing = chance.choice(things)
    (colour,) = seen.colours[thing]
    evidence = seen.last_frame(seen.where[thing][-1])
    return Question("recall-colour", f"What colour was the {thing}?", colour, seen.frame, evidence)


def _recall_before(seen: Seen, chance: random.Random) -> Question | None:
    things = [thing for thing in seen.once() if seen.before(thing) is not None]
    if not things:
        return None
    thing = chance.choice(things)
    before, answer = seen.where[thing][0] - 1, seen.before(thing)
    if answer is None:
        return None
    text = f"What came before the {thing}?"
    return Question("recall-before", text, answer, seen.frame, seen.last_frame(before))


def _recall_first(seen: Seen, chance: random.Random) -> Question | None:
    if len(seen.scenes) < 2 or len(seen.scenes[0].sights) != 1:
        return None
    answer = seen.scenes[0].sights[0].thing
    return Question("recall-first", "What came first?", answer, seen.frame, seen.last_frame(0))


def _existence(seen: Seen, chance: random.Random) -> Question | None:
    shown = [thing for thing in seen.where if not seen.now.shows(thing)]
    never = [thing for thing in THINGS if thing not in seen.where]
    # As many no as yes, and as many digits as shapes in both: the name alone tells nothing.
    group = SHAPES if chance.random() < 0.6 else DIGITS
    shown, never = ([thing for thing in pool if thing in group] for pool in (shown, never))
    if not shown or not never:
        return None
    yes = chance.random() < 0.5
    thing = chance.choice(shown if yes else never)
    evidence = seen.last_frame(seen.where[thing][-1]) if yes else None
    text = f"Did {_a(thing)} appear?"
    return Question("existence", text, "yes" if yes else "no", seen.frame, evidence)


def _count(seen: Seen, chance: random.Random) -> Question | None:
    by_count: dict[int, list[str]] = {}
    for thing in THINGS:
        by_count.setdefault(len(seen.where.get(thing, ())), []).append(thing)
    counts = sorted(count for count in by_count if count < len(NUMBERS))
    count = chance.choice(counts)
    thing = chance.choice(by_count[count])
    evidence = seen.last_frame(seen.where[thing][0]) if count else None
    text = f"How many times did {_a(thing)} appear?"
    return Question("count", text, NUMBERS[count], seen.frame, evidence)


def _order(seen: Seen, chance: random.Random) -> Question | None:
    once = seen.once()
    if len(once) < 2:
        return None
    first, second = sorted(chance.sample(once, 2), key=lambda thing: seen.where[thing])
    if seen.where[first] == seen.where[second]:
        return None
    asked = [first, second]
    chance.shuffle(asked)
    text = f"Which came first, the {asked[0]} or the {asked[1]}?"
    evidence = seen.last_frame(seen.where[first][0])
    return Question("order", text, first, seen.frame, evidence)


_MAKERS: dict[str, Maker] = {
    "now": _now,
    "recall-colour": _recall_colour,
    "recall-before": _recall_before,
    "recall-first": _recall_first,
    "existence": _existence,
    "count": _count,
    "order": _order,
}


def _a(thing: str) -> str:
    return f"an {thing}" if thing == "eight" else f"a {thing}"


def _with_options(question: Question, chance: random.Random) -> Question:
    pool = next((words for words in (COLOURS, THINGS) if question.answer in words), ())
    if question.kind in ("existence", "count", "order") or not pool:
        return question
    others = chance.sample([word for word in pool if word != question.answer], len(LETTERS) - 1)
    options = [question.answer, *others]
    chance.shuffle(options)
    listed = " ".join(f"{a} {b}" for a, b in zip(LETTERS, options, strict=True))
    answer = LETTERS[options.index(question.answer)]
    return replace(question, text=f"{question.text} {listed}", answer=answer, choice=True)
