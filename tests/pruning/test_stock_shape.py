"""Shapes of stock classes: the width for a target, and gates that decide on one width for all layers."""

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_prunable import Measure, compact
from hf_prunable.modeling.size import PARAMETERS, UnitCounts
from hf_prunable.pruning.stock_shape import decide_one_width, stock_width, width_at_target, with_width
from tests.helpers.gated_models import CLOSED, INTERMEDIATE, NUM_LAYERS, assert_same, gate_of, gated
from tests.helpers.tiny_models import FAMILIES, NORM_ORDERS, randomize_, tiny_emptied, tiny_inputs, tiny_prunable


MACS = Measure("macs", 0.05)


def gated_feed_forward(family="wavlm", norm_order="post", seed=0):
    """A model with gates of random values on its intermediate units."""
    model = gated(tiny_prunable(family, norm_order), ("int",))
    generator = torch.Generator().manual_seed(seed)
    for _, gate in model.named_gates():
        gate.log_alpha.data = torch.randn(INTERMEDIATE, generator=generator)
    return model


def size_at(config, width, measure=PARAMETERS):
    return measure.count(config, UnitCounts.of(with_width(config.shape, width)))


@pytest.mark.parametrize("measure", [PARAMETERS, MACS], ids=["parameters", "macs"])
@pytest.mark.parametrize("family", FAMILIES)
@given(target=st.floats(0.001, 0.2))
def test_the_width_is_the_largest_that_fits(family, measure, target):
    config = tiny_prunable(family).config
    width = width_at_target(config, target, measure)
    max_size = (1 - target) * measure.dense(config)
    assert size_at(config, width, measure) <= max_size < size_at(config, width + 1, measure)


def test_the_ceiling_is_one_unit_in_each_layer():
    config = tiny_prunable("hubert").config
    ceiling = 1 - size_at(config, 1) / config.dense_num_parameters
    assert width_at_target(config, ceiling - 1e-9) == 1
    with pytest.raises(ValueError, match="removing all units of the kinds int removes at most"):
        width_at_target(config, ceiling + 1e-4)


@pytest.mark.parametrize("target", [0.0, 1.0, -0.2])
def test_targets_out_of_range_are_refused(target):
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        width_at_target(tiny_prunable("wavlm").config, target)


def test_shapes_that_no_stock_class_has_are_refused():
    with pytest.raises(ValueError, match="its heads are not whole, or its layers differ.*leave `stock_shape` out"):
        stock_width(tiny_emptied("wavlm").config)


@pytest.mark.parametrize("measure", [PARAMETERS, MACS], ids=["parameters", "macs"])
@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_gates_keep_the_best_units_of_each_layer(family, norm_order, measure):
    model = gated_feed_forward(family, norm_order)
    width = width_at_target(model.config, 0.1, measure)
    small = compact(model, **{measure.option: 0.1}, mac_seconds=0.05, stock_shape=True)
    assert small.is_stock and small.to_stock().config.intermediate_size == width < INTERMEDIATE
    for layer in range(NUM_LAYERS):
        best = gate_of(model, layer, "int").log_alpha.argsort(descending=True)[:width].sort().values
        kept, weights = (m.encoder.layers[layer].feed_forward.intermediate_dense.weight for m in (small, model))
        assert torch.equal(kept, weights[best])


def test_no_other_width_is_nearer_to_the_target():
    model = gated_feed_forward()
    small = compact(model, 0.12, stock_shape=True)
    width = stock_width(small.config)
    removed = [1 - size_at(model.config, count) / model.config.dense_num_parameters for count in (width + 1, width)]
    assert removed[0] < 0.12 <= removed[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_target_the_outputs_are_those_of_the_gates(family):
    model = gated(tiny_prunable(family), ("int",))
    for layer, num_closed in enumerate((7, 12, 9)):
        gate_of(model, layer, "int").log_alpha.data[:num_closed] = CLOSED
    small = compact(model, stock_shape=True)
    assert stock_width(small.config) == INTERMEDIATE - 7
    assert_same(model, small)


def test_a_layer_without_open_gates_keeps_one_unit():
    model = gated(tiny_prunable("wav2vec2"), ("int",), CLOSED)
    small = compact(model, stock_shape=True)
    assert stock_width(small.config) == 1
    assert_same(model, small)


def test_equal_gates_are_ordered_by_weights():
    model = gated(tiny_prunable("wavlm"), ("int",), 0.0)
    gate = gate_of(model, 0, "int")
    norms = model.encoder.layers[0].feed_forward.output_dense.unit_norms(gate)
    decisions = decide_one_width(model, 0.1)
    width = int(decisions.is_open[gate].sum())
    assert set(decisions.is_open[gate].nonzero().flatten().tolist()) == set(norms.topk(width).indices.tolist())


def test_rounded_widths_stay_equal():
    small = compact(gated_feed_forward(), 0.1, stock_shape=True, round_to=8)
    assert small.is_stock and stock_width(small.config) % 8 == 0


def test_units_against_their_gates_are_counted(caplog):
    model = gated(tiny_prunable("wavlm"), ("int",))
    gate_of(model, 0, "int").log_alpha.data[:30] = CLOSED
    with caplog.at_level(logging.INFO, "hf_prunable.pruning.stock_shape"):
        decisions = decide_one_width(model, 0.1)
    width = int(decisions.is_open[gate_of(model, 0, "int")].sum())
    removed, kept = 2 * (INTERMEDIATE - width), width - (INTERMEDIATE - 30)
    assert f"{removed} units with an open gate are removed, and {kept} with a closed one are kept" in caplog.text


@pytest.mark.parametrize("units", [("qk", "vo", "int"), ("ffn", "int"), ("int", "conv"), ("vo",)])
def test_gates_on_other_units_are_refused(units):
    model = gated(tiny_prunable("wavlm"), units)
    with pytest.raises(ValueError, match=f"The gates are on {', '.join(units)}, but a stock class"):
        compact(model, 0.1, stock_shape=True)


def test_gates_on_a_shape_that_no_stock_class_has_are_refused():
    model = gated(tiny_emptied("wavlm"), ("int",))
    with pytest.raises(ValueError, match="Start from the dense model"):
        compact(model, stock_shape=True)


def test_a_narrow_model_is_narrowed_further():
    small = compact(gated_feed_forward(), 0.08, stock_shape=True)
    again = gated(small, ("int",))
    randomize_(again, 3)
    smaller = compact(again, 0.15, stock_shape=True)
    assert smaller.is_stock and stock_width(smaller.config) < stock_width(small.config)
    assert smaller.eval()(tiny_inputs()["input_values"]).last_hidden_state.isfinite().all()
