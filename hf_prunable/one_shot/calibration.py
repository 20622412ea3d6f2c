"""Audio that one-shot pruning takes its statistics from."""

from __future__ import annotations

import torch
import torch.distributed as dist


def rank_and_size() -> tuple[int, int]:
    """Returns rank and number of the processes of a distributed run; (0, 1) without one."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def own_clips(clips: torch.Tensor) -> torch.Tensor:
    """Returns the clips that this process computes: every n-th of n processes.

    Args:
        clips: All clips, of shape (clips, samples).
    """
    rank, num_ranks = rank_and_size()
    return clips[rank::num_ranks]


def own_share(num_clips: int) -> int:
    """Returns how many of the first clips this process computes.

    Args:
        num_clips: Number of the first clips over all processes.
    """
    rank, num_ranks = rank_and_size()
    return len(range(rank, num_clips, num_ranks))
