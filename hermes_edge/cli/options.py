"""The flags of ``hermes-edge run``; what they set is documented in :mod:`hermes_edge.settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# Panels of the help.
_FRAMES = "Frames"
_MEMORY = "Memory"
_ANSWERS = "Answers"
_ENGINES = "Engines"
_SNAPSHOTS = "Snapshots"
_TELEMETRY = "Metrics and logs"

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
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
Policy = Annotated[str | None, typer.Option(help="What the memory keeps.", rich_help_panel=_MEMORY)]
Scoring = Annotated[
    str | None,
    typer.Option(help="forward or embedding, of the hermes policies.", rich_help_panel=_MEMORY),
]
Reindexing = Annotated[
    str | None, typer.Option(help="lazy or eager, of the hermes policies.", rich_help_panel=_MEMORY)
]
Smoothing = Annotated[
    str | None,
    typer.Option(help="recursive or one-step, of the hermes policies.", rich_help_panel=_MEMORY),
]
Budget = Annotated[
    str | None, typer.Option(help="Tokens a layer, or 64MiB, 0.5GiB.", rich_help_panel=_MEMORY)
]
StreamBudget = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=BUDGET", help="Of one stream; may be repeated.", rich_help_panel=_MEMORY
    ),
]
Fps = Annotated[
    float | None, typer.Option(help="Frames per second of video.", rich_help_panel=_FRAMES)
]
ChunkFrames = Annotated[
    int | None, typer.Option(help="Frames encoded at once.", rich_help_panel=_MEMORY)
]
ReserveTokens = Annotated[
    int | None,
    typer.Option(help="Rows kept free for a question and its answer.", rich_help_panel=_MEMORY),
]
SliceWorkspace = Annotated[
    str | None,
    typer.Option(help="For the attention of one pass, such as 64MiB.", rich_help_panel=_MEMORY),
]
System = Annotated[str | None, typer.Option(help="System text.", rich_help_panel=_MEMORY)]
MaxTokens = Annotated[int | None, typer.Option(help="Longest answer.", rich_help_panel=_ANSWERS)]
Temperature = Annotated[float | None, typer.Option(help="0 is greedy.", rich_help_panel=_ANSWERS)]
TopP = Annotated[
    float | None, typer.Option(help="Nucleus of the sampling.", rich_help_panel=_ANSWERS)
]
RepetitionPenalty = Annotated[
    float | None, typer.Option(help="1 is none.", rich_help_panel=_ANSWERS)
]
Seed = Annotated[int | None, typer.Option(help="Of the sampling.", rich_help_panel=_ANSWERS)]
Stop = Annotated[
    list[str] | None, typer.Option(help="End an answer before this text.", rich_help_panel=_ANSWERS)
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N.", rich_help_panel=_ENGINES)]
Backend = Annotated[
    str | None,
    typer.Option(
        help="onnxruntime, or tensorrt with plans of hermes-edge build.", rich_help_panel=_ENGINES
    ),
]
Threads = Annotated[int | None, typer.Option(help="0 is one per core.", rich_help_panel=_ENGINES)]
MemoryLimit = Annotated[
    str | None,
    typer.Option(help="Slabs of all streams together, such as 2GiB.", rich_help_panel=_MEMORY),
]
Backpressure = Annotated[
    str | None,
    typer.Option(
        help="latest, adaptive, every or block: what happens where frames come too fast.",
        rich_help_panel=_FRAMES,
    ),
]
SkipStill = Annotated[
    bool | None,
    typer.Option(
        "--skip-still", help="Leave out frames like the one before.", rich_help_panel=_FRAMES
    ),
]
Snapshots = Annotated[
    Path | None,
    typer.Option(
        help="Folder where memories are saved and restored from.", rich_help_panel=_SNAPSHOTS
    ),
]
SaveEvery = Annotated[
    str | None, typer.Option(help="Such as 60s or 5min.", rich_help_panel=_SNAPSHOTS)
]
Keep = Annotated[
    int | None, typer.Option(help="Snapshots of each stream that stay.", rich_help_panel=_SNAPSHOTS)
]
SilentAfter = Annotated[
    str | None,
    typer.Option(help="A source that gives nothing so long is told of.", rich_help_panel=_FRAMES),
]
EngineTimeout = Annotated[
    str | None,
    typer.Option(
        help="An engine call that takes so long ends the process.", rich_help_panel=_ENGINES
    ),
]
MetricsPort = Annotated[
    int | None,
    typer.Option(help="Serve Prometheus metrics at this port.", rich_help_panel=_TELEMETRY),
]
MetricsAddress = Annotated[
    str | None,
    typer.Option(help="Of which address.", show_default="127.0.0.1", rich_help_panel=_TELEMETRY),
]
LogJson = Annotated[
    bool | None, typer.Option("--log-json", help="Log lines as JSON.", rich_help_panel=_TELEMETRY)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document per line.")]
