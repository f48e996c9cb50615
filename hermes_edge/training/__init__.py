"""Trains hermes-tiny: ``python -m hermes_edge.training``. Needs the export extra."""
