"""Reconstruction of a feed-forward block by gradient steps."""

import copy
from dataclasses import replace

import pytest
import torch

from hf_prunable.one_shot.blocks import FeedForwardBlock, add_output
from hf_prunable.one_shot.config import OneShotConfig
from hf_prunable.one_shot.reconstruction import FrameSample, reconstruct_feed_forward_
from tests.helpers.one_shot_models import variant


CONFIG = OneShotConfig(reconstruction_steps=60, reconstruction_frames=256)
KEPT = torch.tensor([0, 3, 4, 7, 12, 20, 21, 33, 39])


def make_states(num_clips=8, frames=30, seed=0):
    return torch.randn(num_clips, frames, 24, generator=torch.Generator().manual_seed(seed))


def closed_layer(name):
    """A layer whose output layer reads the kept units alone, and the targets of the layer as it was."""
    layer = variant(name).encoder.layers[1]
    states = make_states()
    targets = output_of(layer, states)
    weight = layer.feed_forward.output_dense.weight.data
    closed = torch.ones(40, dtype=torch.bool)
    closed[KEPT] = False
    weight[:, closed] = 0
    return layer, states, targets


@torch.no_grad()
def output_of(layer, states):
    block = FeedForwardBlock(layer)
    return block.normalize(add_output(states, block.features(states), block.output_layer))


def reconstruct(layer, states, targets, config=CONFIG, kept=KEPT):
    sample = FrameSample(len(states), states.shape[1], config.seed, states.device)
    with torch.no_grad():
        reconstruct_feed_forward_(FeedForwardBlock(layer), kept, states, targets, sample, config)


def error(layer, states, targets):
    return float((output_of(layer, states) - targets).square().mean())


NAMES = ["wavlm-post-group", "hubert-pre-layer", "adapters", "wav2vec2-post-layer"]


@pytest.mark.parametrize("name", NAMES)
def test_error_falls(name):
    layer, states, targets = closed_layer(name)
    before = error(layer, states, targets)
    reconstruct(layer, states, targets)
    assert error(layer, states, targets) < 0.9 * before


@pytest.mark.parametrize("name", NAMES)
def test_only_kept_units_the_bias_and_the_norm_behind_it_change(name):
    layer, states, targets = closed_layer(name)
    before = copy.deepcopy(layer.state_dict())
    reconstruct(layer, states, targets)
    after = layer.state_dict()
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    expected = {
        f"feed_forward.{part}.{kind}" for part in ("intermediate_dense", "output_dense") for kind in ("weight", "bias")
    }
    if not layer.pre_norm:
        expected |= {"final_layer_norm.weight", "final_layer_norm.bias"}
    assert changed == expected
    closed = torch.ones(40, dtype=torch.bool)
    closed[KEPT] = False
    for key in ("intermediate_dense.weight", "intermediate_dense.bias"):
        assert torch.equal(after[f"feed_forward.{key}"][closed], before[f"feed_forward.{key}"][closed])
        assert not torch.equal(after[f"feed_forward.{key}"][KEPT], before[f"feed_forward.{key}"][KEPT])
    assert (after["feed_forward.output_dense.weight"][:, closed] == 0).all()


def test_modes_and_gradients_stay():
    layer, states, targets = closed_layer("wavlm-post-group")
    layer.requires_grad_(False)
    layer.feed_forward.output_dense.weight.requires_grad_(True)
    flags = [parameter.requires_grad for parameter in layer.parameters()]
    reconstruct(layer, states, targets)
    assert [parameter.requires_grad for parameter in layer.parameters()] == flags
    assert all(parameter.grad is None for parameter in layer.parameters())
    assert not states.requires_grad and not targets.requires_grad


def test_two_runs_agree_to_the_bit_whatever_the_global_seed():
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        layer, states, targets = closed_layer("wavlm-post-group")
        reconstruct(layer, states, targets)
        assert torch.equal(torch.get_rng_state(), state)
        results.append(layer.state_dict())
    for key, value in results[0].items():
        assert torch.equal(value, results[1][key])


def test_another_seed_draws_other_frames():
    results = []
    for seed in (1, 2):
        layer, states, targets = closed_layer("wavlm-post-group")
        reconstruct(layer, states, targets, replace(CONFIG, seed=seed))
        results.append(layer.feed_forward.output_dense.weight)
    assert not torch.equal(*results)


@pytest.mark.parametrize("name", NAMES)
def test_a_block_that_is_right_stays_right(name):
    """Adam's steps have the size of the learning rate even where gradients are rounding."""
    layer, states = variant(name).encoder.layers[1], make_states()
    targets = output_of(layer, states)
    reconstruct(layer, states, targets, kept=torch.arange(40))
    assert error(layer, states, targets) < 1e-6 * float(targets.square().mean())


@pytest.mark.parametrize("name", NAMES)
def test_steps_that_raise_the_error_are_undone(name):
    layer, states, targets = closed_layer(name)
    before = copy.deepcopy(layer.state_dict())
    reconstruct(layer, states, targets, replace(CONFIG, reconstruction_rate=1e4))
    for key, value in layer.state_dict().items():
        assert torch.equal(value, before[key])


def test_no_steps():
    layer, states, targets = closed_layer("wavlm-post-group")
    before = copy.deepcopy(layer.state_dict())
    reconstruct(layer, states, targets, replace(CONFIG, reconstruction_steps=0))
    for key, value in layer.state_dict().items():
        assert torch.equal(value, before[key])


def test_frames_are_those_of_all_clips():
    clips, frames = FrameSample(5, 7, 0, torch.device("cpu")).draw(4000)
    assert len(clips) == len(frames) == 4000
    assert set(zip(clips.tolist(), frames.tolist(), strict=True)) == {
        (clip, frame) for clip in range(5) for frame in range(7)
    }


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_processes_share_the_frames_of_one(num_ranks):
    """Each frame of the sample is drawn by the process that holds its clip."""
    whole = FrameSample(7, 11, 3, torch.device("cpu"))
    parts = [FrameSample(7, 11, 3, torch.device("cpu")) for _ in range(num_ranks)]
    for rank, part in enumerate(parts):
        part.rank, part.num_ranks = rank, num_ranks
    for _ in range(3):
        expected = sorted(zip(*(values.tolist() for values in whole.draw(50)), strict=True))
        actual = []
        for rank, part in enumerate(parts):
            clips, frames = part.draw(50)
            actual += zip((clips * num_ranks + rank).tolist(), frames.tolist(), strict=True)
        assert sorted(actual) == expected
