"""What each process of tests/one_shot/test_one_shot_distributed.py runs; no test module.

torchrun --nproc_per_node 2 -m tests.helpers.one_shot_script FOLDER
"""

import copy
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from hf_prunable import one_shot_prune, refit_, rotate_heads_
from hf_prunable.one_shot.calibration import rank_and_size
from tests.helpers.one_shot_models import FAST, RAGGED, hidden_states, make_clips
from tests.helpers.tiny_models import tiny_prunable


CONFIG = replace(FAST, batch_size=3, reconstruction_steps=12, reconstruction_frames=64)
# Models by name: family and norm order.
MODELS = {"wavlm-post": ("wavlm", "post"), "wav2vec2-pre": ("wav2vec2", "pre")}


def results(name):
    """Yields all models that are computed from shared clips, by what computed them."""
    family, norm_order = MODELS[name]
    # An odd number, so that two processes have different ones.
    clips, model = make_clips(13), tiny_prunable(family, norm_order)
    rotated = copy.deepcopy(model)
    rotate_heads_(rotated, clips, batch_size=3)
    yield "rotate", rotated
    small = tiny_prunable(family, norm_order, seed=1, pruned_shape=RAGGED.to_dict())
    refit_(small, model, clips, config=CONFIG)
    yield "refit", small
    # Fewer clips for prices than processes.
    for num_clips in (1, 5):
        config = replace(CONFIG, price_clips=num_clips, curve_clips=7, reconstruction_steps=0)
        yield f"prune{num_clips}", one_shot_prune(model, clips, target_sparsity=0.25, rounds=2, config=config)
    yield "loss", one_shot_prune(model, clips, target_loss=0.02, held_out=make_clips(3, seed=1), config=CONFIG)


def few_clips():
    """The error of fewer clips than processes."""
    try:
        one_shot_prune(tiny_prunable("hubert"), make_clips(1, 1600), target_sparsity=0.2, config=CONFIG)
    except ValueError as error:
        return str(error)
    return ""


def main():
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    rank, num_ranks = rank_and_size()
    for name in MODELS:
        for kind, model in results(name):
            states = {
                f"states.{number}": states for number, states in enumerate(hidden_states(model, make_clips(3, seed=1)))
            }
            result = {name: tensor.clone() for name, tensor in (model.state_dict() | states).items()}
            save_file(result, folder / f"{name}-{kind}-{num_ranks}-{rank}.safetensors")
    (folder / f"few-{num_ranks}-{rank}.txt").write_text(few_clips())
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
