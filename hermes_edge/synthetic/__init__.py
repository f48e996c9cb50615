"""Seeded streams of moving things, and questions whose answers are known."""

from hermes_edge.synthetic.drawing import draw_scene, draw_stream
from hermes_edge.synthetic.questions import KINDS, Question, make_question, pick_questions
from hermes_edge.synthetic.video import write_video
from hermes_edge.synthetic.world import SPLITS, Scene, Sight, Stream, make_stream

__all__ = [
    "KINDS",
    "SPLITS",
    "Question",
    "Scene",
    "Sight",
    "Stream",
    "draw_scene",
    "draw_stream",
    "make_question",
    "make_stream",
    "pick_questions",
    "write_video",
]
