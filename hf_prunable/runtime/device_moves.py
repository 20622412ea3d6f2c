"""Modules that are on another device for a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def on_device(modules: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Moves modules to a device, and at the end of the block back to where they were.

    Args:
        modules: Modules with parameters, each on one device; a module may stand in the list twice.
        device: Device inside the block.
    """
    before = {module: next(module.parameters()).device for module in modules}
    for module in before:
        module.to(device)
    try:
        yield
    finally:
        for module, original in before.items():
            module.to(original)
