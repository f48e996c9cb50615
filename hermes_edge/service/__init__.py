"""Streams that run on: sources, memories, snapshots and metrics kept going by one process."""
