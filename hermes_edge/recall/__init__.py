"""Memories compared by the questions that they can still answer."""
