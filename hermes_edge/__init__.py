"""Answers questions about an endless video stream from a KV memory of constant size."""

__version__ = "0.1.0"
