"""Experiments on the quality of pruned and truncated models."""
