"""The guidance texts as prompts for captions, so that probes mean something to the model.

A published model has read descriptions of scenes and stories; this one has only what it is
trained on. Without captions, the attention of a probe would be that of words never seen.
"""

from __future__ import annotations

from hermes_edge.memory.probes import GLOBAL_GUIDANCE, LOCAL_GUIDANCE
from hermes_edge.synthetic.questions import NOTHING, Question
from hermes_edge.synthetic.world import Scene, Stream

# A story is told from the beginning, and breaks off where it gets long.
_MOST_SCENES = 12


def scene_caption(stream: Stream, frame: int) -> Question:
    """The local guidance, answered with what is on view: ``red ring and blue star``."""
    scene = stream.scenes[stream.scene_at(frame)]
    return Question("scene", LOCAL_GUIDANCE, _words(scene), frame, frame)


def story_caption(stream: Stream, frame: int) -> Question:
    """The global guidance, answered with the scenes so far: ``red ring, nothing, blue star``."""
    scenes = stream.scenes[: stream.scene_at(frame) + 1][:_MOST_SCENES]
    told = ", ".join(map(_words, scenes))
    return Question("story", GLOBAL_GUIDANCE, told, frame, 0)


def _words(scene: Scene) -> str:
    return " and ".join(f"{sight.colour} {sight.thing}" for sight in scene.sights) or NOTHING
