"""Rotated heads: the model computes the same, and the first dimensions of each head carry most of it."""

import copy

import pytest
import torch

from hf_prunable.modeling.gated import GatedLinear
from hf_prunable.one_shot.head_rotation import (
    query_key_grams,
    rotate_heads_,
    rotate_queries_and_keys_,
    rotate_values_and_outputs_,
)
from hf_prunable.one_shot.statistics import NormalEquations
from tests.helpers.one_shot_models import (
    RAGGED,
    VARIANTS,
    assert_near,
    captured_inputs,
    hidden_states,
    make_clips,
    rotate_model_,
    variant,
)
from tests.helpers.tiny_models import FAMILIES, HEADS, randomize_, tiny_inputs, tiny_prunable


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("name", VARIANTS)
def test_outputs_stay(name, dtype, tolerance):
    model = variant(name).to(dtype)
    before = copy.deepcopy(model)
    clips = make_clips(8).to(dtype)
    scores, outputs = rotate_model_(model, clips)
    assert_near(model, before, clips, tolerance)
    # Audio that the rotation did not see, of another length.
    assert_near(model, before, make_clips(3, 800, seed=1).to(dtype), tolerance)
    assert scores and outputs
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before.state_dict()[key])}
    kinds = {key.split("attention.")[-1] for key in changed}
    assert {"v_proj.weight", "v_proj.bias", "out_proj.weight"} <= kinds
    assert kinds <= {"v_proj.weight", "v_proj.bias", "out_proj.weight"} | {
        f"{projection}_proj.{kind}" for projection in "qk" for kind in ("weight", "bias")
    }


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_of_padded_clips_stay(family, attention):
    model = tiny_prunable(family)
    before = copy.deepcopy(model)
    rotate_model_(model, make_clips(8))
    inputs = tiny_inputs()
    for one in (model, before):
        one.set_attn_implementation(attention)
    with torch.no_grad():
        expected, actual = before(**inputs), model(**inputs)
    torch.testing.assert_close(actual.last_hidden_state, expected.last_hidden_state, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_of_heads_stay(family):
    for head in HEADS[family][1:]:
        model = tiny_prunable(family, head=head)
        before = copy.deepcopy(model)
        rotate_model_(model, make_clips(8))
        with torch.no_grad():
            expected, actual = before(make_clips(2, 800)), model(make_clips(2, 800))
        torch.testing.assert_close(actual.logits, expected.logits, rtol=0, atol=1e-5)


def test_heads_that_are_zero_stay_finite():
    """As in a model whose heads were masked and not cut."""
    model = tiny_prunable("wavlm")
    attention = model.encoder.layers[1].attention
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        projection.weight.data[6:12] = 0
        projection.bias.data[6:12] = 0
    attention.q_proj.weight.data[12:18] = 0
    attention.q_proj.bias.data[12:18] = 0
    attention.out_proj.weight.data[:, 18:] = 0
    before = copy.deepcopy(model)
    rotate_model_(model, make_clips(8))
    assert_near(model, before, make_clips(4), 1e-5)


POOR_CLIPS = {
    "silence": torch.zeros(4, 400),
    "constant": torch.ones(4, 400),
    "two frames": make_clips(1, 60),
    "one frame": make_clips(3, 40),
}


@pytest.mark.parametrize("clips", POOR_CLIPS.values(), ids=POOR_CLIPS)
@pytest.mark.parametrize("name", ["wavlm-post-group", "hubert-pre-layer", "wav2vec2-post-ragged"])
def test_silence_and_a_few_frames(name, clips):
    """Statistics that say little still leave the model as it was, on any audio."""
    model = variant(name)
    before = copy.deepcopy(model)
    rotate_model_(model, clips)
    assert_near(model, before, make_clips(4), 1e-4)


@pytest.mark.parametrize("name", ["wavlm-post-group", "hubert-pre-layer", "wav2vec2-post-ragged", "adapters"])
@torch.no_grad()
def test_first_dimensions_are_the_best_approximation_of_the_scores(name):
    """Compared with the singular values of each head's scores on one clip."""
    model, clips = variant(name).double(), make_clips(1, 800).double()
    layers = [layer for layer in model.encoder.layers if layer.attention.q_proj is not None]
    scores, _ = rotate_model_(model, clips)
    for energies, layer in zip(scores.values(), layers, strict=True):
        attention = layer.attention
        (states,) = captured_inputs(model, [attention], clips)
        query, key, _ = attention._project(states[0])
        widths = attention.shape.query_key
        for energy, queries, keys in zip(energies, query.split(widths, -1), key.split(widths, -1), strict=True):
            keys = keys - keys.mean(0)
            full = queries @ keys.T
            values = torch.linalg.svdvals(full).square()
            assert (energy.diff() <= 0).all()
            assert float(energy.sum()) == pytest.approx(float(full.square().mean()), rel=1e-6)
            for rank in range(len(energy) + 1):
                error = (full - queries[:, :rank] @ keys[:, :rank].T).square().sum()
                assert float(error) == pytest.approx(
                    float(values[rank:].sum()), rel=1e-6, abs=1e-7 * float(values.sum())
                )


@pytest.mark.parametrize("name", ["wavlm-post-group", "hubert-pre-layer", "wav2vec2-post-ragged", "adapters"])
@torch.no_grad()
def test_first_dimensions_are_the_best_approximation_of_the_outputs(name):
    model, clips = variant(name).double(), make_clips(4, 800).double()
    layers = [
        layer for layer in model.encoder.layers if isinstance(getattr(layer.attention, "out_proj", None), GatedLinear)
    ]
    _, outputs = rotate_model_(model, clips)
    for energies, layer in zip(outputs.values(), layers, strict=True):
        attention = layer.attention
        (contexts,) = captured_inputs(model, [attention.out_proj], clips)
        widths = attention.shape.value_output
        parts = zip(
            energies, contexts.flatten(0, 1).split(widths, -1), attention.out_proj.weight.split(widths, 1), strict=True
        )
        for energy, states, columns in parts:
            full = states @ columns.T
            values = torch.linalg.svdvals(full).square()
            assert (energy.diff() <= 0).all()
            assert float(energy.sum()) == pytest.approx(float(full.square().sum(1).mean()), rel=1e-6)
            for rank in range(len(energy) + 1):
                error = (full - states[:, :rank] @ columns[:, :rank].T).square().sum()
                assert float(error) == pytest.approx(
                    float(values[rank:].sum()), rel=1e-6, abs=1e-7 * float(values.sum())
                )


def test_equations_follow_the_new_basis():
    """The returned matrix takes old contexts to new ones, and the equations with them."""
    model, clips = variant("wavlm-post-ragged").double(), make_clips(8).double()
    attention = model.encoder.layers[0].attention
    (before,) = captured_inputs(model, [attention.out_proj], clips)
    targets = torch.randn(*before.shape[:-1], 24, dtype=torch.float64)
    equations = NormalEquations(before.shape[-1], 24, model.device)
    equations.add(before, targets)
    _, change = rotate_values_and_outputs_(attention, equations)
    (after,) = captured_inputs(model, [attention.out_proj], clips)
    torch.testing.assert_close(before @ change, after, rtol=0, atol=1e-9)
    expected = NormalEquations(before.shape[-1], 24, model.device)
    expected.add(after, targets)
    torch.testing.assert_close(equations.gram, expected.gram, rtol=0, atol=1e-9)
    torch.testing.assert_close(equations.cross, expected.cross, rtol=0, atol=1e-9)


def test_grams_do_not_depend_on_the_batches():
    model, clips = variant("hubert-post-group"), make_clips(7)
    attention = model.encoder.layers[1].attention
    (states,) = captured_inputs(model, [attention], clips)
    whole, parts = (query_key_grams(attention, batches) for batches in ([states], states.split(2)))
    for one, two in zip(whole, parts, strict=True):
        for gram, other in zip(one, two, strict=True):
            assert gram.dtype == torch.float64
            torch.testing.assert_close(gram, other, rtol=1e-5, atol=1e-7)


def test_keys_are_centred_over_each_clip():
    """What all keys of a clip share does not count."""
    model, clips = variant("hubert-post-group").double(), make_clips(3).double()
    attention = model.encoder.layers[1].attention
    (states,) = captured_inputs(model, [attention], clips)
    _, before = query_key_grams(attention, [states])
    attention.k_proj.bias.data += 5
    _, after = query_key_grams(attention, [states])
    for one, two in zip(before, after, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-9)


def test_energies_without_queries():
    model = variant("wavlm-post-narrow")
    attention = model.encoder.layers[0].attention
    assert [len(energy) for energy in rotate_queries_and_keys_(attention, [torch.randn(2, 9, 24)])] == [0, 0]
    ragged = variant("wavlm-post-ragged").encoder.layers[0].attention
    energies = rotate_queries_and_keys_(ragged, [torch.randn(2, 9, 24)])
    assert tuple(map(len, energies)) == RAGGED.layers[0].attention.query_key


def test_rotating_twice_changes_nothing_more():
    """The second rotation finds the basis that the first one chose, up to signs."""
    model, clips = variant("wav2vec2-pre-layer").double(), make_clips(8).double()
    first = rotate_model_(model, clips)
    before = copy.deepcopy(model)
    second = rotate_model_(model, clips)
    for one, two in zip(first, second, strict=True):
        for layer_idx in one:
            for energy, other in zip(one[layer_idx], two[layer_idx], strict=True):
                torch.testing.assert_close(energy, other, rtol=1e-6, atol=1e-9)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value.abs(), before.state_dict()[key].abs(), rtol=0, atol=1e-6)


def test_a_trained_size_of_weights_stays_exact():
    """Small weights and large ones, as trained models have them, in float32."""
    model = randomize_(tiny_prunable("wavlm"), seed=3)
    for layer in model.encoder.layers:
        layer.attention.q_proj.weight.data *= 0.05
        layer.attention.k_proj.weight.data *= 3
        layer.attention.v_proj.weight.data[:6] *= 1e-3
    before = copy.deepcopy(model)
    rotate_model_(model, make_clips(8))
    for one, two in zip(hidden_states(model, make_clips(2)), hidden_states(before, make_clips(2)), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-5)


def test_public_rotation_of_a_model_in_training_mode():
    """The same as layer by layer, with what the first dimensions carry; mode, gradients and random state stay."""
    for name in VARIANTS:
        model = variant(name).train()
        model.encoder.layers[0].requires_grad_(False)
        flags = [parameter.requires_grad for parameter in model.parameters()]
        before, expected = copy.deepcopy(model).eval(), copy.deepcopy(model).eval()
        scores, outputs = rotate_model_(expected, make_clips(7))
        state = torch.get_rng_state()
        energies = rotate_heads_(model, make_clips(7), batch_size=3)
        assert torch.equal(torch.get_rng_state(), state)
        assert model.training and all(module.training for module in model.modules())
        assert [parameter.requires_grad for parameter in model.parameters()] == flags
        assert all(parameter.grad_fn is None and parameter.is_leaf for parameter in model.parameters())
        model(make_clips(2)).last_hidden_state.sum().backward()
        assert_near(model.eval(), before, make_clips(2), 2e-5)
        assert len(energies) == 3
        for layer_idx, (layer, shape) in enumerate(zip(energies, model.config.shape.layers, strict=True)):
            attention = shape.attention
            assert tuple(map(len, layer.query_key)) == (attention.query_key if attention else ())
            assert tuple(map(len, layer.value_output)) == (attention.value_output if attention else ())
            for carried, energy in zip(
                (*layer.query_key, *layer.value_output),
                (*scores.get(layer_idx, ()), *outputs.get(layer_idx, ())),
                strict=True,
            ):
                torch.testing.assert_close(carried, energy.cumsum(0) / energy.sum(), rtol=1e-3, atol=1e-5)
                assert not len(carried) or float(carried[-1]) == pytest.approx(1)


@pytest.mark.parametrize("family", FAMILIES)
def test_public_rotation_in_float64(family):
    model = tiny_prunable(family).double()
    before = copy.deepcopy(model)
    rotate_heads_(model, make_clips(7).double())
    assert_near(model, before, make_clips(2).double(), 1e-10)
    assert not torch.equal(
        model.encoder.layers[0].attention.v_proj.weight, before.encoder.layers[0].attention.v_proj.weight
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rotation_in_half_precision_is_refused(dtype):
    with pytest.raises(ValueError, match="float32"):
        rotate_heads_(tiny_prunable("wavlm").to(dtype), make_clips(7))
