"""Hashes of content, by which a run recognises weights, settings and files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

import torch


# Tells a digest from other texts in a file of settings.
PREFIX = "sha256:"


class Hash(Protocol):
    """A hash of `hashlib`."""

    def update(self, data: Any, /) -> None:
        """Adds bytes."""


def add_tensors(digest: Hash, tensors: Mapping[str, torch.Tensor]) -> None:
    """Adds names, dtypes, shapes and all bytes of tensors to a hash, in the order of the names.

    Args:
        digest: Hash, which is changed.
        tensors: Tensors by name, on any device.
    """
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Returns the digest of names, dtypes, shapes and all bytes of tensors.

    Args:
        tensors: Tensors by name, on any device.
    """
    digest = hashlib.sha256()
    add_tensors(digest, tensors)
    return PREFIX + digest.hexdigest()


def json_digest(value: Any) -> str:
    """Returns the digest of a value as JSON, where the order of names has no effect.

    Args:
        value: Nested dictionaries and lists; values that JSON lacks count as their texts.
    """
    return PREFIX + hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
