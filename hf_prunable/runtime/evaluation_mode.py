"""Evaluation mode for a while, after which every module is in the mode it was in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluation_mode(models: list[nn.Module], num_threads: int | None = None) -> Iterator[None]:
    """Evaluation mode without autograd; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    threads_before = torch.get_num_threads()
    try:
        for model in models:
            model.eval()
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads_before)
        for module, training in modes:
            module.training = training
