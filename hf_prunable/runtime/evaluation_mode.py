"""Evaluation mode inside a `with` block, with every module's own mode restored at its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def restored_modes(models: Iterable[nn.Module]) -> Iterator[None]:
    """Restores the mode of every module, training or evaluation, when the block ends, also after an exception.

    Modules are restored one by one: a frozen batch norm, for example, stays in evaluation mode while its model trains.

    Args:
        models: Models whose modules are restored.
    """
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def evaluation_mode(models: Iterable[nn.Module], num_threads: int | None = None) -> Iterator[None]:
    """Runs a block in evaluation mode and in `torch.inference_mode`; modes and threads are restored when it ends.

    Args:
        models: Models that are put into evaluation mode.
        num_threads: CPU threads of torch inside the block, 1 or more; `None` leaves them as they are.
    """
    models = list(models)
    threads_before = torch.get_num_threads()
    with restored_modes(models):
        try:
            for model in models:
                model.eval()
            if num_threads is not None:
                torch.set_num_threads(num_threads)
            with torch.inference_mode():
                yield
        finally:
            torch.set_num_threads(threads_before)
