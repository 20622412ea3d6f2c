"""Curves and prices: measured on the whole model, by hand."""

import copy
from dataclasses import replace

import pytest
import torch

from hf_prunable.modeling.gated import GatedLinear
from hf_prunable.one_shot.curves import CurveMeasurement, DownstreamLoss, restored
from hf_prunable.one_shot.head_rotation import rotate_queries_and_keys_
from hf_prunable.one_shot.streams import Stream
from hf_prunable.pruning.distillation import default_layers, hidden_states_of, layer_loss
from tests.helpers.one_shot_models import FAST, VARIANTS, captured_inputs, make_clips, variant
from tests.helpers.tiny_models import tiny_prunable


UNITS = ("qk", "vo", "int")
CLIPS = make_clips()


@torch.no_grad()
def layer_losses(student, teacher, clips):
    """The distillation loss of each compared layer without projections, from complete forward passes over single clips.

    The input of the first layer stands for layer 0.
    """
    losses = []
    layers = default_layers(student.config.num_hidden_layers)
    for clip in clips:
        states, targets = (hidden_states_of(model, clip[None], layers) for model in (student, teacher))
        for model, found in ((student, states), (teacher, targets)):
            found[0] = model.embed_frames(clip[None])
        losses.append(torch.stack([layer_loss(states[layer], targets[layer]) for layer in layers]))
    return torch.stack(losses).mean(0)


def squares(student, teacher, clips):
    return pytest.approx(layer_losses(student, teacher, clips).square().tolist(), rel=5e-2, abs=1e-9)


def measure(student, teacher=None, units=UNITS, price_clips=6, config=FAST):
    teacher = student if teacher is None else teacher
    with torch.no_grad():
        return CurveMeasurement(student, teacher, CLIPS, price_clips, units, config).estimate().curves


def noisy(model, scale=0.1, seed=3):
    """A copy of a model with disturbed weights."""
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data += scale * parameter.data.abs().mean() * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize("name", VARIANTS)
def test_curves_of_all_models(name):
    model = variant(name)
    before = copy.deepcopy(model.state_dict())
    curves = measure(model)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    expected = {}
    for layer_idx, layer in enumerate(model.config.shape.layers):
        if layer.attention and layer.attention.heads:
            expected[layer_idx, "qk"] = sum(layer.attention.query_key)
            expected[layer_idx, "vo"] = sum(layer.attention.value_output)
        expected[layer_idx, "int"] = layer.intermediate or 0
    expected = {key: count for key, count in expected.items() if count}
    assert {(curve.layer_idx, curve.unit): len(curve.order) for curve in curves} == expected
    for curve in curves:
        assert sorted(curve.order) == list(range(len(curve.order)))
        assert list(curve.growth) == sorted(curve.growth) and len(curve.growth) == len(curve.order)
        assert all(0 < price < float("inf") for price in curve.prices)


@pytest.mark.parametrize("units", [("qk",), ("vo",), ("int",), ("vo", "int")], ids="+".join)
def test_only_the_units_that_are_asked_for(units):
    curves = measure(variant("wavlm-post-group"), units=units)
    assert {curve.unit for curve in curves} == set(units) and len(curves) == 3 * len(units)


def test_two_measurements_agree_to_the_bit():
    model = variant("wavlm-pre-layer")
    assert measure(model) == measure(model)


@pytest.mark.parametrize(
    "name", ["wavlm-post-group", "hubert-pre-layer", "adapters", "wavlm-post-ragged", "wavlm-pre-narrow"]
)
@torch.no_grad()
def test_downstream_loss_is_the_loss_of_the_whole_model(name):
    teacher, clips = variant(name), CLIPS[:5]
    student = noisy(teacher)
    loss = DownstreamLoss(student, teacher, clips, 2)
    present = layer_losses(student, teacher, clips)
    assert [loss.present[layer] for layer in loss.layers] == pytest.approx(present.tolist(), abs=1e-5)
    assert loss.square_growth(0, Stream(student, clips, 2)) == pytest.approx([0] * len(present), abs=1e-6)
    # A change of one layer, measured from that layer on.
    for layer_idx, layer in enumerate(student.encoder.layers):
        changed = copy.deepcopy(student)
        loss.student = changed
        for parameter in changed.encoder.layers[layer_idx].feed_forward.parameters():
            parameter.data *= 0.5
        stream = Stream(student, clips, 2)
        (stream.states,) = captured_inputs(student, [layer], clips)
        if student.config.has_relative_position_bias and layer_idx:
            _, stream.position_bias = student.encoder.layers[0](stream.states)
        expected = layer_losses(changed, teacher, clips).square() - present.square()
        assert loss.square_growth(layer_idx, stream) == pytest.approx(expected.tolist(), abs=1e-5)


@torch.no_grad()
def test_price_of_queries():
    """A third of the dimensions with the least energy closed, measured on a complete model."""
    model, config = variant("wavlm-post-group"), replace(FAST, price_fraction=1 / 3)
    for curve in measure(model, units=("qk",), config=config):
        changed = copy.deepcopy(model)
        attention = changed.encoder.layers[curve.layer_idx].attention
        (states,) = captured_inputs(changed, [attention], CLIPS)
        energy = torch.cat(rotate_queries_and_keys_(attention, [states]))
        closed = energy.argsort()[:8]
        assert set(closed.tolist()) == set(curve.order[:8])
        attention.q_proj.weight.data[closed] = 0
        attention.q_proj.bias.data[closed] = 0
        found = [price * float(energy[closed].sum()) for price in curve.prices]
        assert found == squares(changed, model, CLIPS[:6])
        assert sum(curve.growth) == pytest.approx(float(energy.sum()), rel=1e-3)


@pytest.mark.parametrize("name", ["wavlm-post-group", "hubert-pre-layer"])
@torch.no_grad()
def test_price_of_intermediate_units(name):
    """The refit of a third of them removed, by least squares on the frames themselves."""
    model, config = variant(name), replace(FAST, price_fraction=1 / 4, ridge=1e-10)
    for curve in measure(model, units=("int",), config=config):
        changed = copy.deepcopy(model)
        layer = changed.encoder.layers[curve.layer_idx].feed_forward.output_dense
        (features,) = captured_inputs(changed, [layer], CLIPS)
        features = features.flatten(0, 1).double()
        kept = sorted(set(range(40)) - set(curve.order[:10]))
        targets = features @ layer.weight.double().T + layer.bias.double()
        data = torch.cat((features[:, kept], torch.ones(len(features), 1)), dim=1)
        solution = torch.linalg.lstsq(data, targets).solution
        error = float((data @ solution - targets).square().sum(1).mean())
        layer.weight.data.zero_()
        layer.weight.data[:, kept] = solution[:-1].T.float()
        layer.bias.data.copy_(solution[-1])
        assert sum(curve.growth[:10]) == pytest.approx(error, rel=1e-2)
        assert [price * error for price in curve.prices] == squares(changed, model, CLIPS[:6])


def test_dead_units_do_not_make_the_others_dear():
    """A block with units that do nothing keeps as many of the others as the same block without them."""
    model = variant("hubert-post-group")
    (living,) = [curve for curve in measure(model, units=("int",)) if curve.layer_idx == 1]
    dead = copy.deepcopy(model)
    output = dead.encoder.layers[1].feed_forward.output_dense
    output.weight.data[:, 4:24] = 0
    (curve,) = [curve for curve in measure(dead, dead, units=("int",)) if curve.layer_idx == 1]
    assert sum(curve.prices) < 100 * sum(living.prices)


def test_layers_are_restored():
    layer = GatedLinear(3, 2)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    with pytest.raises(KeyError), torch.no_grad(), restored(layer):
        layer.weight.zero_()
        layer.bias.data.fill_(7)
        raise KeyError
    assert torch.equal(layer.weight, weight) and torch.equal(layer.bias, bias)
    assert isinstance(layer.weight, torch.nn.Parameter)


@pytest.mark.parametrize("options", [{}, {"conv_bias": True}])
@torch.no_grad()
def test_price_of_channels(options):
    """The refit of the next convolution without some channels, by least squares on the frames themselves."""
    model, config = tiny_prunable("wavlm", **options), replace(FAST, price_fraction=1 / 4, ridge=1e-10)
    curves = measure(model, units=("conv",), config=config)
    assert [curve.layer_idx for curve in curves] == [0, 1]
    for curve in curves:
        changed = copy.deepcopy(model)
        reader = changed.feature_extractor.conv_layers[curve.layer_idx + 1].conv
        channels, width = reader.in_channels, reader.kernel_size[0]
        # One channel stays.
        assert len(curve.order) == len(set(curve.order)) == channels - 1
        (states,) = captured_inputs(changed, [reader], CLIPS)
        taps = states.unfold(-1, width, reader.stride[0]).transpose(1, 2)
        num_removed = round(len(curve.order) / 4)
        kept = sorted(set(range(channels)) - set(curve.order[:num_removed]))
        data = taps[:, :, kept].flatten(2).flatten(0, 1).double()
        targets = reader(states).transpose(1, 2).flatten(0, 1).double()
        if reader.bias is not None:
            data = torch.cat((data, torch.ones(len(data), 1)), dim=1)
        solution = torch.linalg.lstsq(data, targets).solution
        error = float((data @ solution - targets).square().sum(1).mean())
        weights = solution[: len(kept) * width]
        reader.weight.data.zero_()
        reader.weight.data[:, kept] = weights.T.unflatten(1, (len(kept), width)).float()
        if reader.bias is not None:
            reader.bias.data.copy_(solution[-1])
        assert sum(curve.growth[:num_removed]) == pytest.approx(error, rel=5e-2)
        assert [price * error for price in curve.prices] == squares(changed, model, CLIPS[:6])
