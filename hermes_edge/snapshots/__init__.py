"""Memories on disk: one file each, whole or not there, and a folder that keeps the newest ones."""

from hermes_edge.snapshots.file import SnapshotFile
from hermes_edge.snapshots.folder import SnapshotFolder
from hermes_edge.snapshots.record import Conversation, Geometry, SnapshotRecord, StreamOptions
from hermes_edge.snapshots.saver import Saved, Saver, SaverCounts

__all__ = [
    "Conversation",
    "Geometry",
    "Saved",
    "Saver",
    "SaverCounts",
    "SnapshotFile",
    "SnapshotFolder",
    "SnapshotRecord",
    "StreamOptions",
]
