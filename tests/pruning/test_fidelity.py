"""Fidelity: what is compared with what, on which frames, and with which weight."""

import copy
import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_prunable import compact, truncate
from hf_prunable.modeling.units import DEFAULT_UNITS
from hf_prunable.pruning.distillation import Distillation
from hf_prunable.pruning.fidelity import Fidelity, incomparable_reason, measure_fidelity
from tests.helpers.gated_models import both_norm_orders, gated, set_pattern
from tests.helpers.tiny_models import (
    FAMILIES,
    HEADS,
    PRUNABLE_CLASSES,
    tiny_config,
    tiny_emptied,
    tiny_inputs,
    tiny_prunable,
    tiny_stock,
)


NUM_LAYERS = 3
AUDIO = tiny_inputs(batch_size=2, samples=400, padded=False)["input_values"]
BATCH = {"input_values": AUDIO}


def assert_close(found, expected, tolerance=1e-5):
    for field in dataclasses.fields(Fidelity):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        assert one == pytest.approx(other, rel=tolerance, abs=tolerance), field.name


@torch.no_grad()
def states_of(model, **inputs):
    """All hidden states in float64, the last one as `last_hidden_state`."""
    base = model.base_model
    outputs = base(**inputs, output_hidden_states=True)
    return [state.double() for state in (*outputs.hidden_states[:-1], outputs.last_hidden_state)]


def by_hand(student, teacher, frames):
    """Cosine and relative error of each hidden state over a list of frames (clip, frame)."""
    cosines, errors = [], []
    for one, other in zip(student, teacher, strict=True):
        one, other = (torch.stack([state[clip, frame] for clip, frame in frames]) for state in (one, other))
        cosines.append(((one * other).sum(1) / one.norm(dim=1) / other.norm(dim=1)).mean().item())
        errors.append(((one - other).norm() / other.norm()).item())
    return cosines, errors


@both_norm_orders
@pytest.mark.parametrize("make", [tiny_stock, tiny_prunable])
def test_equal_models_agree(family, norm_order, make):
    model = make(family, norm_order)
    fidelity = measure_fidelity(model, copy.deepcopy(model), [BATCH])
    assert fidelity.cosine == pytest.approx([1] * (NUM_LAYERS + 1), abs=1e-6)
    assert fidelity.relative_error == [0] * (NUM_LAYERS + 1)
    assert fidelity.distillation_loss == pytest.approx(0, abs=1e-6)
    assert fidelity.mean_cosine == pytest.approx(1, abs=1e-6)
    frames = states_of(model, input_values=AUDIO)[0].shape[:2].numel()
    assert fidelity.num_frames == frames


@both_norm_orders
@pytest.mark.parametrize("make", [tiny_stock, tiny_prunable])
def test_every_hidden_state_is_compared_as_users_get_it(family, norm_order, make):
    teacher, student = make(family, norm_order), tiny_emptied(family, norm_order, seed=1)
    states, targets = (states_of(model, input_values=AUDIO) for model in (student, teacher))
    frames = [(clip, frame) for clip in range(2) for frame in range(states[0].shape[1])]
    cosines, errors = by_hand(states, targets, frames)
    fidelity = measure_fidelity(student, teacher, [BATCH])
    assert fidelity.cosine == pytest.approx(cosines, abs=1e-5)
    assert fidelity.relative_error == pytest.approx(errors, rel=1e-5)
    assert fidelity.mean_cosine == pytest.approx(sum(cosines) / 4, abs=1e-5)
    assert max(fidelity.cosine) < 0.9
    # Without training, the projections are the identity.
    expected = Distillation(teacher, student.config)(student, AUDIO).item()
    assert fidelity.distillation_loss == pytest.approx(expected, rel=1e-5)


@both_norm_orders
def test_masked_and_small_model_are_alike(family, norm_order):
    teacher = tiny_prunable(family, norm_order)
    masked = gated(copy.deepcopy(teacher), DEFAULT_UNITS)
    set_pattern(masked, ["heads", "mixed", "mixed"] * 6, seed=3)
    assert_close(measure_fidelity(masked, teacher, [BATCH]), measure_fidelity(compact(masked), teacher, [BATCH]))


@given(factor=st.floats(0.1, 10))
@settings(max_examples=10, deadline=None)
def test_a_scaled_last_hidden_state(factor):
    teacher, student = tiny_prunable("hubert"), tiny_prunable("hubert")
    with torch.no_grad():
        for parameter in student.encoder.layers[-1].final_layer_norm.parameters():
            parameter *= factor
    fidelity = measure_fidelity(student, teacher, [BATCH])
    assert fidelity.cosine == pytest.approx([1] * 4, abs=1e-5)
    assert fidelity.relative_error == pytest.approx([0, 0, 0, abs(factor - 1)], abs=1e-5)
    size = states_of(teacher, input_values=AUDIO)[-1].abs().mean().item()
    # The last of the four layers that are distilled.
    assert fidelity.distillation_loss == pytest.approx(abs(factor - 1) * size / 4, rel=1e-4, abs=1e-6)


@both_norm_orders
def test_padding_does_not_count(family, norm_order):
    # The group norm over time would mix padding into the real frames.
    teacher, student = (tiny_prunable(family, norm_order, seed=seed, feature_norm="layer") for seed in (0, 1))
    inputs = tiny_inputs()
    lengths = inputs["attention_mask"].sum(1).tolist()
    padded = measure_fidelity(student, teacher, [inputs])
    alone = measure_fidelity(
        student,
        teacher,
        [{"input_values": clip[None, :length]} for clip, length in zip(inputs["input_values"], lengths, strict=True)],
    )
    assert_close(padded, alone)
    unmasked = measure_fidelity(student, teacher, [{"input_values": inputs["input_values"]}])
    assert unmasked.num_frames > padded.num_frames


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), samples=st.sampled_from([60, 400, 730]))
@settings(max_examples=10, deadline=None)
def test_batches_weigh_by_their_frames(sizes, samples):
    teacher, student = (tiny_prunable("wav2vec2", seed=seed) for seed in (0, 1))
    clips = tiny_inputs(sum(sizes), samples, padded=False)["input_values"]
    other = {"input_values": AUDIO}
    whole = measure_fidelity(student, teacher, [{"input_values": clips}, other])
    parts = measure_fidelity(student, teacher, [other, *({"input_values": part} for part in clips.split(sizes))])
    assert_close(parts, whole)


def test_a_long_batch_counts_more_than_a_short_one():
    teacher, student = (tiny_prunable("wavlm", seed=seed) for seed in (0, 1))
    long, short = ({"input_values": tiny_inputs(1, samples, padded=False)["input_values"]} for samples in (1600, 80))
    one, other, both = (measure_fidelity(student, teacher, batches) for batches in ([long], [short], [long, short]))
    assert both.num_frames == one.num_frames + other.num_frames
    mean = (one.num_frames * one.cosine[2] + other.num_frames * other.cosine[2]) / both.num_frames
    assert both.cosine[2] == pytest.approx(mean, abs=1e-6)
    mean = one.num_frames * one.distillation_loss + other.num_frames * other.distillation_loss
    assert both.distillation_loss == pytest.approx(mean / both.num_frames, rel=1e-5)
    assert abs(one.cosine[2] - other.cosine[2]) > 1e-3


@pytest.mark.parametrize("family, head", [(family, head) for family in FAMILIES for head in HEADS[family]])
def test_a_head_changes_nothing(family, head):
    teacher = tiny_prunable(family)
    model = tiny_prunable(family, head=head, seed=1)
    batch = tiny_inputs() | {"labels": torch.zeros(3, dtype=torch.long)}
    bare = measure_fidelity(model.base_model, teacher, [batch])
    assert measure_fidelity(model, teacher, [batch]) == bare
    assert measure_fidelity(model.base_model, model, [batch]).relative_error == [0] * 4


@pytest.mark.parametrize("family", ["wavlm", "wav2vec2"])
def test_the_adapter_after_the_encoder_is_left_out(family):
    plain = tiny_prunable(family)
    config = tiny_config(family, prunable=True, add_adapter=True)
    adapter = PRUNABLE_CLASSES[family]["base"](config).eval()
    assert not adapter.load_state_dict(plain.state_dict(), strict=False).unexpected_keys
    student, inputs = tiny_prunable(family, seed=1), tiny_inputs()
    assert_close(measure_fidelity(student, adapter, [inputs]), measure_fidelity(student, plain, [inputs]), 1e-6)


@both_norm_orders
def test_a_truncated_student_is_compared_with_the_first_hidden_states(family, norm_order):
    teacher = tiny_prunable(family, norm_order)
    fidelity = measure_fidelity(truncate(teacher, 2), teacher, [tiny_inputs()])
    assert fidelity.cosine == pytest.approx([1] * 3, abs=1e-6)
    assert fidelity.relative_error == pytest.approx([0] * 3, abs=1e-6)
    assert fidelity.distillation_loss == pytest.approx(0, abs=1e-5)


def test_modes_are_as_before_and_nothing_has_gradients():
    teacher, student = (tiny_prunable("wavlm", seed=seed, hidden_dropout=0.5).train() for seed in (0, 1))
    student.encoder.layers[1].eval()
    modes = [module.training for module in student.modules()]
    first, second = (measure_fidelity(student, teacher, iter([BATCH])) for _ in range(2))
    assert first == second
    assert [module.training for module in student.modules()] == modes and teacher.training
    assert all(parameter.grad is None for parameter in student.parameters())


def test_half_precision_is_compared_in_float32():
    teacher = tiny_prunable("wavlm")
    student = copy.deepcopy(teacher).to(torch.bfloat16)
    fidelity = measure_fidelity(student, teacher, [BATCH])
    assert min(fidelity.cosine) > 0.99 and 0 < max(fidelity.relative_error) < 0.1


def test_nan_is_not_hidden():
    teacher, student = tiny_prunable("wavlm"), tiny_prunable("wavlm")
    with torch.no_grad():
        student.encoder.layers[1].final_layer_norm.bias[0] = float("nan")
    fidelity = measure_fidelity(student, teacher, [BATCH])
    assert fidelity.cosine[:2] == pytest.approx([1, 1], abs=1e-6)
    assert torch.tensor(fidelity.cosine[2:]).isnan().all() and torch.tensor(fidelity.distillation_loss).isnan()


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (
            {"hidden_size": 32},
            "hidden size of the student is 24 and that of the teacher 32. Give a teacher of the same",
        ),
        ({"num_hidden_layers": 2}, "the student has 3 layers and the teacher 2. Give a teacher that is at least as"),
        ({"conv_stride": (5, 2, 1)}, r"same frames, but `conv_stride` is \[5, 2, 1\] and \[5, 2, 2\]"),
    ],
)
def test_models_that_cannot_be_compared(teacher, message):
    student, teacher = tiny_prunable("hubert"), tiny_prunable("hubert", **teacher)
    with pytest.raises(ValueError, match=message):
        measure_fidelity(student, teacher, [BATCH])
    assert incomparable_reason(student.config, student.config) is None


@pytest.mark.parametrize("mask", [[], [torch.zeros(2, 400, dtype=torch.long)]])
def test_no_frame_is_an_error(mask):
    model = tiny_prunable("wavlm", "pre")
    with pytest.raises(ValueError, match="at least one frame of audio, but the batches hold none. Give longer clips"):
        measure_fidelity(model, model, [BATCH | {"attention_mask": entry} for entry in mask])
