"""Compaction with a refit: with gates of any origin, and without audio as ever."""

from dataclasses import replace

import pytest
import torch

from hf_prunable import compact
from hf_prunable.pruning.distillation import layer_loss
from tests.helpers.gated_models import CLOSED, OPEN, gated
from tests.helpers.one_shot_models import FAST, hidden_states, make_clips
from tests.helpers.tiny_models import FAMILIES, NORM_ORDERS, tiny_prunable


CLIPS, OTHERS = make_clips(24), make_clips(8, seed=1)


def half_closed(family, norm_order):
    """A dense model, and the same with gates of which a random half is closed."""
    dense = tiny_prunable(family, norm_order)
    model = tiny_prunable(family, norm_order)
    model.load_state_dict(dense.state_dict())
    model = gated(model, ("qk", "vo", "int"))
    generator = torch.Generator().manual_seed(0)
    for _, gate in model.named_gates():
        is_closed = torch.rand(gate.log_alpha.shape, generator=generator) < 0.5
        gate.log_alpha.data = torch.where(is_closed, CLOSED, OPEN)
    return dense, model.eval()


def loss(student, teacher):
    pairs = zip(hidden_states(student, OTHERS), hidden_states(teacher, OTHERS), strict=True)
    return float(torch.stack([layer_loss(*pair) for pair in pairs]).mean())


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_refit_brings_hidden_states_nearer(family, norm_order):
    teacher, model = half_closed(family, norm_order)
    plain = compact(model)
    refitted = compact(model, clips=CLIPS, teacher=teacher, config=FAST)
    assert refitted.config.shape == plain.config.shape
    assert loss(refitted, teacher) < 0.9 * loss(plain, teacher)


def test_a_refit_after_a_target_and_reconstruction():
    teacher, model = half_closed("hubert", "post")
    plain = compact(model, target_sparsity=0.6)
    config = replace(FAST, reconstruction_steps=20)
    refitted = compact(model, target_sparsity=0.6, clips=CLIPS, teacher=teacher, config=config)
    assert refitted.config.shape == plain.config.shape
    assert loss(refitted, teacher) < 0.9 * loss(plain, teacher)


def test_gated_model_and_teacher_are_left_as_they_are():
    teacher, model = half_closed("wavlm", "post")
    before = [{key: value.clone() for key, value in one.state_dict().items()} for one in (teacher, model)]
    compact(model, clips=CLIPS, teacher=teacher, config=FAST)
    for one, state in zip((teacher, model), before, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in one.state_dict().items())


def test_audio_and_teacher_come_together():
    teacher, model = half_closed("hubert", "post")
    for options in ({"clips": CLIPS}, {"teacher": teacher}):
        with pytest.raises(ValueError, match="both `clips` and `teacher`"):
            compact(model, **options)
