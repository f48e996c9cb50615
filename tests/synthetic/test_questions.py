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
from hermes_edge.synthetic import KINDS, Question, Stream, make_question, make_stream
from hermes_edge.synthetic.questions import LETTERS, NUMBERS, pick_questions
from hermes_edge.synthetic.world import COLOURS, THINGS

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


class Diary:
    """What each frame up to a moment showed, and the episodes of the same picture."""

    def __init__(self, stream: Stream, moment: int) -> None:
        self.frames: list[frozenset[tuple[str, str]]] = []
        self.episodes: list[tuple[int, frozenset[tuple[str, str]]]] = []
        for scene in stream.scenes:
            for frame in range(scene.first_frame, scene.first_frame + scene.frames):
                if frame <= moment:
                    shown = frozenset((sight.thing, sight.colour) for sight in scene.sights)
                    if frame == scene.first_frame:
                        self.episodes.append((frame, shown))
                    self.frames.append(shown)

    def with_thing(self, thing: str) -> list[int]:
        """Episodes that show it."""
        return [
            index
            for index, (_, shown) in enumerate(self.episodes)
            if thing in {name for name, _ in shown}
        ]

    def newest_frame(self, episode: int) -> int:
        """The last frame of an episode that has been seen."""
        ends = [first for first, _ in self.episodes[1:]] + [len(self.frames)]
        return ends[episode] - 1


def _truth(diary: Diary, question: Question) -> tuple[str, int | None]:
    """Answer and evidence frame of a question in one-word form, by a recount."""
    text, now = question.text.partition("?")[0], diary.frames[-1]
    named = [word for word in re.findall(r"\w+", text) if word in THINGS]
    places = [diary.with_thing(thing) for thing in named]
    if text == "What is it now":
        return ("nothing" if not now else next(iter(now))[0]), len(diary.frames) - 1
    if text == "What colour is it now":
        ((_, colour),) = now
        return colour, len(diary.frames) - 1
    if text.startswith("What colour is the"):
        return dict(now)[named[0]], len(diary.frames) - 1
    if text.startswith("What colour was the"):
        (colour,) = {dict(diary.episodes[place][1])[named[0]] for place in places[0]}
        return colour, diary.newest_frame(places[0][-1])
    if text.startswith("What came before the"):
        (place,) = places[0]
        ((before, _),) = diary.episodes[place - 1][1]
        return before, diary.newest_frame(place - 1)
    if text == "What came first":
        ((first, _),) = diary.episodes[0][1]
        return first, diary.newest_frame(0)
    if text.startswith("Did"):
        seen = bool(places[0])
        return ("yes", diary.newest_frame(places[0][-1])) if seen else ("no", None)
    if text.startswith("How many times"):
        count = len(places[0])
        return NUMBERS[count], diary.newest_frame(places[0][0]) if count else None
    assert text.startswith("Which came first, the")
    (first_place,), (second_place,) = places
    assert first_place != second_place
    older = min(first_place, second_place)
    return named[places.index([older])], diary.newest_frame(older)


@pytest.mark.parametrize(("frames", "streams"), [(1, 40), (5, 40), (48, 60), (200, 15)])
def test_every_answer_agrees_with_a_recount(frames: int, streams: int) -> None:
    kinds: Counter[str] = Counter()
    for stream, question in _asked(range(streams), frames):
        kinds[question.kind] += 1
        diary = Diary(stream, question.asked_frame)
        answer, evidence = _truth(diary, question)
        assert question.evidence_frame == evidence, question
        if question.choice:
            options = re.findall(r"\(([A-D])\) (\w+)", question.text.partition("?")[2])
            assert [f"({letter})" for letter, _ in options] == [*LETTERS]
            right = [f"({letter})" for letter, word in options if word == answer]
            assert right == [question.answer]
        else:
            assert question.answer == answer, question
    assert set(kinds) == set(KINDS) or frames < 48


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
    for seed in range(30):
        stream = make_stream(seed, 60)
        for frame in (0, 11, 30):
            cut = stream.scene_at(frame)
            short = replace(stream, scenes=stream.scenes[: cut + 1])
            whole, part = (make_question(s, kind, frame, random.Random(3)) for s in (stream, short))
            assert whole == part


def test_yes_and_no_are_asked_alike_and_kinds_too() -> None:
    asked = [question for _, question in _asked(range(150), 48)]
    answers = Counter(q.answer for q in asked if q.kind == "existence")
    assert set(answers) == {"yes", "no"}
    assert 0.42 < answers["yes"] / answers.total() < 0.58
    kinds = Counter(question.kind for question in asked)
    assert min(kinds.values()) > 0.09 * kinds.total()


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
    with pytest.raises(SettingsError, match=rf"\A{re.escape(text)}\Z"):
        make_question(make_stream(0, 5), "why", 0, random.Random(0))


@pytest.mark.parametrize("frame", [-1, 5])
def test_a_frame_outside_of_the_stream_is_refused(frame: int) -> None:
    text = f"the frame is outside of the stream: required 0 to 4, found {frame}"
    with pytest.raises(SettingsError, match=rf"\A{re.escape(text)}\Z"):
        make_question(make_stream(0, 5), "now", frame, random.Random(0))
