"""Questions: truths against a slow recount, frame by frame, and what may be asked at all."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from dataclasses import asdict, replace

import pytest

from hermes_edge.errors import SettingsError
from hermes_edge.synthetic import (
    KINDS,
    Question,
    Scene,
    Sight,
    Stream,
    make_question,
    make_stream,
    pick_questions,
)
from hermes_edge.synthetic.questions import LETTERS
from hermes_edge.synthetic.world import COLOURS, DIGITS, THINGS

# sha256 of the questions of seeds 0 to 19 as JSON: equal on every platform and version.
QUESTIONS = "f27bb61460251eab814d66060d1f9f74aa23f09f359e959ac5e902020c5c7c00"


def _asked(seeds: range, frames: int, count: int = 30) -> list[tuple[Stream, Question]]:
    pairs = []
    for seed in seeds:
        stream = make_stream(seed, frames)
        picked = pick_questions(stream, count, random.Random(seed))
        pairs += [(stream, question) for question in picked]
    return pairs


def test_questions_are_equal_on_every_platform() -> None:
    asked = [asdict(question) for _, question in _asked(range(20), 48)]
    assert hashlib.sha256(json.dumps(asked).encode()).hexdigest() == QUESTIONS


Shown = dict[str, str]
Truths = list[tuple[str, int | None]]


class Film:
    """A stream frame by frame up to a moment, without its scenes."""

    def __init__(self, stream: Stream, moment: int) -> None:
        film = [
            {sight.thing: sight.colour for sight in scene.sights}
            for scene in stream.scenes
            for _ in range(scene.frames)
        ]
        self.shown: list[Shown] = film[: moment + 1]
        self.now = self.shown[-1]
        self.runs = {thing: self._runs(thing) for thing in THINGS}

    def _runs(self, thing: str) -> list[tuple[int, int]]:
        """First and newest frame of every time that a thing was there."""
        frames = [i for i, shown in enumerate(self.shown) if thing in shown]
        starts = [i for i in frames if i - 1 not in frames]
        ends = [i for i in frames if i + 1 not in frames]
        return list(zip(starts, ends, strict=True))

    def truths(self, text: str) -> Truths:
        """Every true answer to a question and the frame it is known from; none if it is absurd."""
        newest = len(self.shown) - 1
        if text == "What is it now?":
            return [(thing, newest) for thing in self.now] or [("nothing", newest)]
        if text == "What colour is it now?":
            return [(colour, newest) for colour in self.now.values()]
        if text == "What came first?":
            later = [i for i, shown in enumerate(self.shown) if shown != self.shown[0]]
            return [(thing, later[0] - 1) for thing in self.shown[0] if later]
        things = [word for word in re.findall(r"\w+", text) if word in THINGS]
        for words, thing in zip(("one", "two"), things, strict=False):
            text = text.replace(f" {thing}", f" <{words}>", 1)
        return self._about(text, things)

    def _about(self, text: str, things: list[str]) -> Truths:
        thing, runs = things[0], self.runs[things[0]]
        article = "an" if thing == "eight" else "a"
        if text == "What colour is the <one> now?":
            return [(self.now[thing], len(self.shown) - 1)] if thing in self.now else []
        if text == "What colour was the <one>?":
            colours = {shown[thing] for shown in self.shown if thing in shown}
            return [(colour, runs[-1][1]) for colour in colours if thing not in self.now]
        if text == "What came before the <one>?":
            starts = [start for start, _ in runs if start > 0]
            return [(other, i - 1) for i in starts for other in self.shown[i - 1] or ["nothing"]]
        if text == f"Did {article} <one> appear?":
            if thing in self.now:
                return []
            return [("yes", runs[-1][1])] if runs else [("no", None)]
        if text == f"How many times did {article} <one> appear?":
            number = ("zero", "one", "two", "three", "four", "many")[min(len(runs), 5)]
            return [(number, runs[0][1] if runs else None)]
        assert text == "Which came first, the <one> or the <two>?"
        both = [(self.runs[name], name) for name in things]
        if any(len(runs) != 1 for runs, _ in both):
            return []
        oldest = min(runs[0][0] for runs, _ in both)
        return [(name, runs[0][1]) for runs, name in both if runs[0][0] == oldest]


FORMS = {
    "now": r"What (is it|colour is it|colour is the \w+) now\?",
    "recall-colour": r"What colour was the \w+\?",
    "recall-before": r"What came before the \w+\?",
    "recall-first": r"What came first\?",
    "existence": r"Did an? \w+ appear\?",
    "count": r"How many times did an? \w+ appear\?",
    "order": r"Which came first, the \w+ or the \w+\?",
}


@pytest.mark.parametrize("lengths", [range(1, 9), range(9, 60), range(60, 201, 7)], ids=str)
def test_every_answer_is_the_only_true_one(lengths: range) -> None:
    kinds: Counter[str] = Counter()
    letters: Counter[str] = Counter()
    for seed in range(400):
        stream = make_stream(seed, lengths[seed % len(lengths)])
        for question in pick_questions(stream, 20, random.Random(seed)):
            text, mark, options = question.text.partition("?")
            assert re.fullmatch(FORMS[question.kind], text + mark)
            film = Film(stream, question.asked_frame)
            ((answer, evidence),) = film.truths(text + mark)
            assert question.evidence_frame == evidence, question
            kinds[question.kind] += 1
            if question.choice:
                listed = re.fullmatch(r" \(A\) (\w+) \(B\) (\w+) \(C\) (\w+) \(D\) (\w+)", options)
                assert listed is not None and len(set(listed.groups())) == 4
                assert {*listed.groups()} <= {*(COLOURS if answer in COLOURS else THINGS)}
                assert question.answer == LETTERS[listed.groups().index(answer)]
                letters[question.answer] += 1
            else:
                assert (question.answer, options) == (answer, "")
    assert set(kinds) == set(KINDS)
    assert kinds.total() > 3000
    assert set(letters) == set(LETTERS)
    assert min(letters.values()) > 0.15 * letters.total()


def _possible(film: Film, kind: str) -> bool:
    """Whether there is any question of a kind."""
    if kind in ("now", "count"):
        return True
    if kind == "recall-first":
        return len(film.truths("What came first?")) == 1
    if kind == "recall-colour":
        return any(len(film.truths(f"What colour was the {x}?")) == 1 for x in THINGS)
    if kind == "existence":
        return any(runs for x, runs in film.runs.items() if x not in film.now)
    once = [(x, runs[0][0]) for x, runs in film.runs.items() if len(runs) == 1]
    if kind == "order":
        return len({start for _, start in once}) > 1
    return any(
        start > 0 and len(film.shown[start]) == len(film.shown[start - 1]) == 1 for _, start in once
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_question_is_asked_wherever_there_is_one(kind: str) -> None:
    found: Counter[bool] = Counter()
    for seed in range(40):
        stream = make_stream(seed, 40)
        for frame in (0, 1, 3, 6, 9, 39):
            made = (make_question(stream, kind, frame, random.Random(i)) for i in range(40))
            possible = any(question is not None for question in made)
            assert possible == _possible(Film(stream, frame), kind), (seed, frame)
            found[possible] += 1
    assert found[True] > 20
    assert found[False] > 20 or kind in ("now", "count")


def test_age_is_the_time_since_the_evidence() -> None:
    for _, question in _asked(range(20), 48):
        if question.evidence_frame is None:
            assert question.age_frames is None
        else:
            assert question.age_frames == question.asked_frame - question.evidence_frame >= 0
            assert (question.kind != "now") or question.age_frames == 0


def test_recall_is_of_things_that_are_out_of_sight() -> None:
    for _, question in _asked(range(60), 48):
        if question.kind == "recall-colour":
            assert question.age_frames is not None and question.age_frames > 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_later_changes_no_question(kind: str) -> None:
    asked = 0
    for seed in range(30):
        stream = make_stream(seed, 60)
        for frame in (0, 11, 30):
            index = stream.scene_at(frame)
            scene = stream.scenes[index]
            seen = replace(scene, frames=frame - scene.first_frame + 1)
            cut = replace(stream, scenes=(*stream.scenes[:index], seen))
            # Another future: every thing at once, from the next frame on.
            all_things = tuple(Sight(thing, "red") for thing in THINGS)
            other = replace(stream, scenes=(*cut.scenes, Scene(frame + 1, 9, all_things, 0)))
            whole, *rest = (
                make_question(s, kind, frame, random.Random(3), choice=bool(seed % 2))
                for s in (stream, cut, other)
            )
            assert rest == [whole, whole]
            asked += whole is not None
    assert asked >= 30


def test_yes_and_no_are_asked_alike_and_kinds_too() -> None:
    answers: dict[str, Counter[str]] = {"shape": Counter(), "digit": Counter()}
    for seed in range(150):
        stream = make_stream(seed, 48)
        for q in pick_questions(stream, 30, random.Random(seed), kinds=("existence",)):
            answers["digit" if {*re.findall(r"\w+", q.text)} & {*DIGITS} else "shape"][
                q.answer
            ] += 1
    for counts in answers.values():
        assert counts.total() > 1000
        assert set(counts) == {"yes", "no"}
        assert 0.45 < counts["yes"] / counts.total() < 0.55
    kinds = Counter(question.kind for _, question in _asked(range(150), 48))
    assert min(kinds.values()) > 0.09 * kinds.total()


def test_the_thing_named_first_came_first_half_of_the_time() -> None:
    named: Counter[bool] = Counter()
    for seed in range(100):
        stream = make_stream(seed, 48)
        for q in pick_questions(stream, 20, random.Random(seed), kinds=("order",)):
            named[q.text.startswith(f"Which came first, the {q.answer} or")] += 1
    assert named.total() > 1000
    assert 0.45 < named[True] / named.total() < 0.55


def test_a_name_alone_tells_neither_colour_nor_existence() -> None:
    asked = [question for _, question in _asked(range(300), 48)]
    for kind, allowed in (("existence", 0.8), ("recall-colour", 0.4)):
        by_text: dict[str, Counter[str]] = {}
        for q in asked:
            if q.kind == kind and not q.choice:
                by_text.setdefault(q.text, Counter())[q.answer] += 1
        common = [c for c in by_text.values() if c.total() >= 20]
        assert common
        for counts in common:
            assert counts.most_common(1)[0][1] / counts.total() < allowed


def test_shares_of_multiple_choice_are_kept() -> None:
    stream = make_stream(1, 48)
    colours = {"recall-colour", "now"}
    for share, expected in ((0.0, False), (1.0, True)):
        asked = pick_questions(
            stream, 60, random.Random(0), kinds=sorted(colours), choice_share=share
        )
        words = [q for q in asked if q.answer in (*COLOURS, *THINGS, *LETTERS)]
        assert words and all(q.choice == expected for q in words)


def test_an_unknown_kind_is_refused() -> None:
    text = f"unknown kind of question: required {', '.join(KINDS)}, found 'why'"
    stream, chance = make_stream(0, 5), random.Random(0)
    with pytest.raises(SettingsError, match=rf"\A{re.escape(text)}\Z"):
        make_question(stream, "why", 0, chance)
    # Also where chance would not draw it.
    with pytest.raises(SettingsError, match=rf"\A{re.escape(text)}\Z"):
        pick_questions(stream, 0, chance, kinds=("now", "why"))


@pytest.mark.parametrize("frame", [-1, 5])
def test_a_frame_outside_of_the_stream_is_refused(frame: int) -> None:
    text = f"the frame is outside of the stream: required 0 to 4, found {frame}"
    stream, chance = make_stream(0, 5), random.Random(0)
    with pytest.raises(SettingsError, match=rf"\A{re.escape(text)}\Z"):
        make_question(stream, "now", frame, chance)
    with pytest.raises(SettingsError, match=rf"\A{re.escape(text)}\Z"):
        pick_questions(stream, 0, chance, frames=(0, frame))
