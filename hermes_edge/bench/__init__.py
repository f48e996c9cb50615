"""The benchmark: every stage of a session beside its floor, baselines in the same run."""
