"""Rounded widths: the nearest multiple of what was decided, by rank, and exact but for the units that leave."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_prunable import Measure, compact
from hf_prunable.modeling.units import UNITS
from hf_prunable.pruning.decisions import GateDecisions, decide_at_target
from hf_prunable.pruning.rounding import round_widths
from tests.helpers.gated_models import (
    CLOSED,
    HEAD_DIM,
    INTERMEDIATE,
    NUM_LAYERS,
    SIZE,
    assert_same,
    both_norm_orders,
    close,
    dense,
    gate_of,
    gated,
    head_dims,
    set_pattern,
)
from tests.helpers.tiny_models import randomize_


SUBSETS = st.just(UNITS) | st.lists(st.sampled_from(UNITS), min_size=1, unique=True).map(tuple)
PATTERNS = st.lists(st.sampled_from(("open", "closed", "mixed", "heads")), min_size=20, max_size=20)


def nearest(width, multiple, present):
    """The multiple nearest to a width, halves up, that is neither 0 nor more than there is."""
    multiples = range(multiple, width + 2 * multiple, multiple)
    return min(min(multiples, key=lambda value: (abs(value - width), -value)), present) if width else 0


def assert_rounded(model, before, after, multiple, units):
    """Compares a model's shapes before and after rounding."""

    def expected(unit, width, present):
        return nearest(width, multiple, present) if unit in units else width

    present = model.config.shape
    conv = zip(before.conv_channels[:-1], present.conv_channels[:-1], strict=True)
    last = present.conv_channels[-1]
    assert after.conv_channels == (*(expected("conv", width, full) for width, full in conv), last)
    for one, other, full in zip(before.layers, after.layers, present.layers, strict=True):
        assert one.heads == other.heads
        assert (one.attention is None) == (other.attention is None)
        assert (one.intermediate is None) == (other.intermediate is None)
        if one.intermediate is not None:
            assert other.intermediate == expected("int", one.intermediate, full.intermediate)
        for position, head in enumerate(one.heads):
            place = full.heads.index(head)
            for unit, widths in (("qk", "query_key"), ("vo", "value_output")):
                width, there = getattr(one.attention, widths)[position], getattr(full.attention, widths)[place]
                assert getattr(other.attention, widths)[position] == expected(unit, width, there)


@both_norm_orders
@given(data=st.data())
def test_any_gate_pattern_is_rounded_and_exact_but_for_units_that_leave(family, norm_order, data):
    units = data.draw(SUBSETS)
    multiple = data.draw(st.integers(1, 9))
    model = dense(family, norm_order)
    for _ in range(data.draw(st.integers(1, 2), label="times pruned")):
        model.attach_gates(units)
        model.eval()
        set_pattern(model, data.draw(PATTERNS), data.draw(st.integers(0, 2**32)))
        decisions = GateDecisions(model)
        rounded = round_widths(decisions, multiple)
        small = compact(model, round_to=multiple)
        assert small.config.shape == rounded.cut().shape
        assert_rounded(model, decisions.cut().shape, small.config.shape, multiple, units)
        for gate in decisions.is_open:
            leaves = decisions.is_open[gate] & ~rounded.is_open[gate]
            gate.log_alpha.data[leaves] = CLOSED
        assert_same(model, small)
        model = small


@both_norm_orders
def test_a_target_with_rounded_widths_computes_the_same_where_only_closed_units_leave(family, norm_order):
    model = gated(dense(family, norm_order), ("vo", "qk", "int"))
    for layer in range(NUM_LAYERS):
        for unit in ("vo", "qk", "int"):
            close(model, layer, unit, slice(None, None, 2))
    by_gates = GateDecisions(model)
    target = by_gates.sparsity() - 0.1
    rounded = round_widths(decide_at_target(model, target), 2)
    assert not any((by_gates.is_open[gate] & ~rounded.is_open[gate]).any() for gate in by_gates.fine_gates)
    small = compact(model, target, round_to=2)
    assert small.num_parameters() < model.config.dense_num_parameters
    assert_same(model, small)


@pytest.mark.parametrize("unit", ("int", "vo", "qk"))
def test_units_come_and_go_by_log_alpha_and_ties_by_weight_norm(unit):
    model = gated(dense("wav2vec2"), ("int", "vo", "qk"))
    generator = torch.Generator().manual_seed(0)
    for layer in range(NUM_LAYERS):
        gate = gate_of(model, layer, unit)
        # A few closed, in random places, with many ties.
        order = torch.randperm(gate.num_gates, generator=generator)
        gate.log_alpha.data = torch.linspace(-3, 1, gate.num_gates).round()[order]
    decisions = GateDecisions(model)
    seen = set()
    for multiple in (2, 3, 4, 5, 6, 15):
        rounded = round_widths(decisions, multiple)
        for layer in range(NUM_LAYERS):
            gate = gate_of(model, layer, unit)
            attention, feed_forward = model.encoder.layers[layer].attention, model.encoder.layers[layer].feed_forward
            module = {"int": feed_forward.output_dense, "vo": attention.out_proj, "qk": attention.q_proj}[unit]
            norms = module.weight.norm(dim=1 if unit == "qk" else 0)
            rank = sorted(range(gate.num_gates), key=lambda i: (gate.log_alpha[i].item(), norms[i].item()))[::-1]
            for head in (
                [range(INTERMEDIATE)] if unit == "int" else [range(h, h + HEAD_DIM) for h in range(0, SIZE, 6)]
            ):
                best_first = [i for i in rank if i in head]
                width, goal = (int(each.is_open[gate][best_first].sum()) for each in (decisions, rounded))
                assert rounded.is_open[gate][best_first].tolist() == [True] * goal + [False] * (len(best_first) - goal)
                seen.add((goal > width) - (goal < width))
    assert seen == {-1, 0, 1}, "widths have to go both ways, or the test shows nothing"


def test_widths_that_are_0_stay_0():
    model = gated(dense("wavlm"))
    close(model, 0, "qk", head_dims(1))
    close(model, 1, "vo", head_dims(2))
    close(model, 1, "int")
    close(model, 2, "mha")
    shape = compact(model).config.shape
    assert compact(model, round_to=HEAD_DIM).config.shape == shape
    assert shape.layers[0].attention.query_key[1] == 0 and len(shape.layers[1].heads) == 3


def test_an_emptied_convolution_keeps_one_multiple():
    model = gated(dense("hubert"), ("conv",), log_alpha=CLOSED)
    small = compact(model, round_to=8)
    assert small.config.shape.conv_channels == (8, 8, 20)
    assert_same(model, small)


@pytest.mark.parametrize("units", (("head",), ("mha", "ffn")))
def test_widths_without_gates_of_their_own_are_not_rounded(units):
    model = dense("wavlm")
    model.attach_gates(units)
    randomize_(model, seed=1)
    shape = compact(model).config.shape
    assert not shape.is_dense(model.config)
    assert compact(model, round_to=4).config.shape == shape


def test_decisions_are_left_alone():
    model = dense("wavlm")
    model.attach_gates(UNITS)
    randomize_(model, seed=1)
    measure = Measure("macs", 1.0)
    decisions = decide_at_target(model, 0.5, measure)
    before = {gate: copy.deepcopy(is_open) for gate, is_open in decisions.is_open.items()}
    size = decisions.size(measure)
    assert round_widths(decisions, 4).size(measure) != size == decisions.size(measure)
    assert all(torch.equal(is_open, before[gate]) for gate, is_open in decisions.is_open.items())


@pytest.mark.parametrize("multiple", (0, -8, 8.0, "8"))
def test_a_multiple_that_is_none_is_refused(multiple):
    with pytest.raises(ValueError, match=rf"`round_to` must be a whole number of at least 1, but is {multiple!r}"):
        compact(gated(dense("wavlm")), round_to=multiple)
