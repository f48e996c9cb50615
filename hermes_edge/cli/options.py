"""The flags of ``hermes-edge run``; what they set is documented in :mod:`hermes_edge.settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="Video file, folder of images, camN, /dev/videoN, rtsp:// or http:// address, or "
        "GStreamer pipeline; NAME= may stand before it.",
    ),
]
Ask = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TIME QUESTION",
        help='Such as "0:12 What is happening?" or "door@end Who came?"; may be repeated.',
    ),
]
Stdin = Annotated[
    bool, typer.Option("--stdin", help="Ask what comes on stdin, line by line, at once.")
]
Bundle = Annotated[Path | None, typer.Option(help="Folder of the bundle.")]
Config = Annotated[
    Path | None, typer.Option(help="Settings file.", show_default="./hermes-edge.toml")
]
Policy = Annotated[str | None, typer.Option(help="What the memory keeps.")]
Scoring = Annotated[str | None, typer.Option(help="forward or embedding, of the hermes policies.")]
Reindexing = Annotated[str | None, typer.Option(help="lazy or eager, of the hermes policies.")]
Smoothing = Annotated[
    str | None, typer.Option(help="recursive or one-step, of the hermes policies.")
]
Budget = Annotated[str | None, typer.Option(help="Tokens a layer, or 64MiB, 0.5GiB.")]
Fps = Annotated[float | None, typer.Option(help="Frames per second of video.")]
ChunkFrames = Annotated[int | None, typer.Option(help="Frames encoded at once.")]
ReserveTokens = Annotated[
    int | None, typer.Option(help="Rows kept free for a question and its answer.")
]
SliceWorkspace = Annotated[
    str | None, typer.Option(help="For the attention of one pass, such as 64MiB.")
]
System = Annotated[str | None, typer.Option(help="System text.")]
MaxTokens = Annotated[int | None, typer.Option(help="Longest answer.")]
Temperature = Annotated[float | None, typer.Option(help="0 is greedy.")]
TopP = Annotated[float | None, typer.Option(help="Nucleus of the sampling.")]
RepetitionPenalty = Annotated[float | None, typer.Option(help="1 is none.")]
Seed = Annotated[int | None, typer.Option(help="Of the sampling.")]
Stop = Annotated[list[str] | None, typer.Option(help="End an answer before this text.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N.")]
Backend = Annotated[
    str | None, typer.Option(help="onnxruntime, or tensorrt with plans of hermes-edge build.")
]
Threads = Annotated[int | None, typer.Option(help="0 is one per core.")]
MemoryLimit = Annotated[
    str | None, typer.Option(help="Slabs of all streams together, such as 2GiB.")
]
Backpressure = Annotated[
    str | None,
    typer.Option(help="latest, adaptive, every or block: what happens where frames come too fast."),
]
SkipStill = Annotated[
    bool | None, typer.Option("--skip-still", help="Leave out frames like the one before.")
]
Snapshots = Annotated[
    Path | None, typer.Option(help="Folder where memories are saved and restored from.")
]
SaveEvery = Annotated[str | None, typer.Option(help="Such as 60s or 5min.")]
Keep = Annotated[int | None, typer.Option(help="Snapshots of each stream that stay.")]
SilentAfter = Annotated[
    str | None, typer.Option(help="A source that gives nothing so long is told of.")
]
EngineTimeout = Annotated[
    str | None, typer.Option(help="An engine call that takes so long ends the process.")
]
MetricsPort = Annotated[int | None, typer.Option(help="Serve Prometheus metrics at this port.")]
MetricsAddress = Annotated[
    str | None, typer.Option(help="Of which address.", show_default="127.0.0.1")
]
LogJson = Annotated[bool | None, typer.Option("--log-json", help="Log lines as JSON.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document per line.")]
