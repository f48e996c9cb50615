"""Stream a video through a bundle and ask: python runtime/ask_video.py BUNDLE VIDEO QUESTION."""

import sys

from hermes_edge.errors import HermesEdgeError
from hermes_edge.runtime import Runtime, open_source


def ask_video(bundle: str, video: str, question: str) -> None:
    """Feed one frame a second, then print the answer as it comes."""
    runtime = Runtime.load(bundle)
    with runtime.session(chunk_frames=4) as session, open_source(video, fps=1.0) as source:
        for frame in source:
            session.feed(frame.image, at=frame.time_s)
        answers = session.ask(question, stream=True)
        for piece in answers:
            print(piece, end="", flush=True)
        answer = answers.answer
        print(f"\n{answer.ttft_ms:.1f} ms to the first token, {answer.memory_rows} rows")


if __name__ == "__main__":
    try:
        ask_video(*sys.argv[1:])
    except HermesEdgeError as error:
        sys.exit(str(error))
