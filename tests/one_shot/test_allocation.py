"""Allocation: the target is met to one unit, and smaller targets lie within larger ones."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_prunable import AttentionShape, LayerShape, PrunedShape
from hf_prunable.modeling.size import PARAMETERS, Measure, UnitCounts
from hf_prunable.one_shot.allocation import (
    CheapestFirst,
    OneWidth,
    cheapest_first,
    remove_units,
    smallest_shape,
    unit_size,
)
from hf_prunable.one_shot.loss_estimate import LossEstimate, UnitCurve
from tests.helpers.one_shot_models import CHANNELS, DENSE_ATTENTION, NARROW, RAGGED, SHAPES
from tests.helpers.tiny_models import FAMILIES, NORM_ORDERS, tiny_config


MACS = Measure("macs", 0.5)
MEASURES = {"parameters": PARAMETERS, "macs": MACS}
UNIT_SETS = [("qk", "vo", "int"), ("qk",), ("vo",), ("int",), ("qk", "int"), ("conv",), ("qk", "vo", "int", "conv")]


def make_config(family="wavlm", norm_order="post"):
    return tiny_config(family, norm_order, prunable=True)


def shape_of(config, name):
    return SHAPES[name] if name in SHAPES else PrunedShape.dense(config)


def make_curves(shape, units=("qk", "vo", "int"), seed=0, ties=False):
    """Curves with random orders, prices over several orders of magnitude, and growth that never falls."""
    generator = torch.Generator().manual_seed(seed)
    curves = []

    def add(layer_idx, unit, num_units, num_removable):
        growth = torch.zeros(num_removable) if ties else torch.rand(num_removable, generator=generator).sort().values
        prices = tuple((10 ** (4 * torch.rand(2, generator=generator))).tolist())
        order = torch.randperm(num_units, generator=generator)[:num_removable]
        curves.append(UnitCurve(layer_idx, unit, tuple(order.tolist()), tuple(growth.tolist()), prices))

    if "conv" in units:
        for conv_idx, count in enumerate(shape.conv_channels[:-1]):
            add(conv_idx, "conv", count, count - 1)
    for layer_idx, layer in enumerate(shape.layers):
        attention = layer.attention or AttentionShape((), (), ())
        counts = {"qk": sum(attention.query_key), "vo": sum(attention.value_output), "int": layer.intermediate or 0}
        for unit, count in counts.items():
            if unit in units and count:
                add(layer_idx, unit, count, count)
    return curves


WEIGHTS = (1.0, 0.25)


def make_order(config, shape, curves, measure):
    return CheapestFirst(config, shape, LossEstimate((0.1, 0.2), tuple(curves)), measure, WEIGHTS)


def allocate(config, shape, curves, max_size, measure):
    order = make_order(config, shape, curves, measure)
    return order.shape_after(order.removals_to(max_size))


def size_of(config, shape, measure):
    return measure.count(config, UnitCounts.of(shape))


def widths(shape):
    """All widths of a shape by name; 0 for what is gone."""
    found = {(conv_idx, "conv"): count for conv_idx, count in enumerate(shape.conv_channels)}
    for layer_idx, layer in enumerate(shape.layers):
        found[layer_idx, "int"] = layer.intermediate or 0
        attention = layer.attention or AttentionShape((), (), ())
        for head in range(4):
            position = attention.heads.index(head) if head in attention.heads else None
            for name, values in (("qk", attention.query_key), ("vo", attention.value_output)):
                found[layer_idx, name, head] = 0 if position is None else values[position]
    return found


def fits_into(small, large):
    return all(width <= widths(large)[name] for name, width in widths(small).items())


def block_kinds(shape):
    return [(layer.attention is None, layer.intermediate is None) for layer in shape.layers]


ARGUMENTS = {
    "family": st.sampled_from(FAMILIES),
    "norm_order": st.sampled_from(NORM_ORDERS),
    "name": st.sampled_from(["dense", *SHAPES]),
    "measure": st.sampled_from([PARAMETERS, MACS]),
    "units": st.sampled_from(UNIT_SETS),
    "seed": st.integers(0, 100),
    "ties": st.booleans(),
}


@given(part=st.floats(0, 1), **ARGUMENTS)
def test_size_is_at_most_the_target_and_one_removal_below_it(
    family, norm_order, name, measure, units, seed, ties, part
):
    config = make_config(family, norm_order)
    shape = shape_of(config, name)
    curves = make_curves(shape, units, seed, ties)
    present, least = (size_of(config, one, measure) for one in (shape, smallest_shape(shape, units)))
    target = least + part * (present - least)
    found = allocate(config, shape, curves, target, measure)
    found.validate(config)
    assert size_of(config, found, measure) <= target
    assert fits_into(found, shape) and block_kinds(found) == block_kinds(shape)
    # Any larger shape of the same order is above the target: one unit more in some block.
    removals = sorted(
        (growth * (price / unit_size(config, shape, curve, measure)), number, index)
        for number, curve in enumerate(curves)
        for price in [sum(weight * price for weight, price in zip(WEIGHTS, curve.prices, strict=True))]
        for index, growth in enumerate(curve.growth)
    )
    sizes = []
    removed = {}
    for _, number, index in [(0, 0, None), *removals]:
        if index is not None:
            curve = curves[number]
            removed.setdefault((curve.layer_idx, curve.unit), []).append(curve.order[index])
        sizes.append(size_of(config, remove_units(shape, removed), measure))
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] == least
    assert size_of(config, found, measure) == max(size for size in sizes if size <= target)


@given(parts=st.tuples(st.floats(0, 1), st.floats(0, 1)), **ARGUMENTS)
def test_smaller_targets_lie_within_larger_ones(family, norm_order, name, measure, units, seed, ties, parts):
    config = make_config(family, norm_order)
    shape = shape_of(config, name)
    curves = make_curves(shape, units, seed, ties)
    present, least = (size_of(config, one, measure) for one in (shape, smallest_shape(shape, units)))
    small, large = (
        allocate(config, shape, curves, least + part * (present - least), measure) for part in sorted(parts)
    )
    assert fits_into(small, large)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
@pytest.mark.parametrize("name", ["dense", *SHAPES])
@pytest.mark.parametrize("units", UNIT_SETS, ids=map("+".join, UNIT_SETS))
def test_ceiling(units, name, measure):
    config = make_config()
    shape = shape_of(config, name)
    curves = make_curves(shape, units)
    least = size_of(config, smallest_shape(shape, units), measure)
    assert allocate(config, shape, curves, least, measure) == smallest_shape(shape, units)
    with pytest.raises(ValueError, match=f"{least} are left"):
        allocate(config, shape, curves, least - 1, measure)


@pytest.mark.parametrize("name", ["dense", *SHAPES])
def test_present_size_removes_nothing(name):
    config = make_config()
    shape = shape_of(config, name)
    for size in (size_of(config, shape, PARAMETERS), 1e12):
        assert allocate(config, shape, make_curves(shape), size, PARAMETERS) == shape


@given(part=st.floats(0, 1), width=st.integers(2, 40), measure=st.sampled_from([PARAMETERS, MACS]))
def test_one_width_meets_the_target_to_one_unit_a_layer(part, width, measure):
    config = make_config()
    shape = PrunedShape(CHANNELS, (LayerShape(DENSE_ATTENTION, width),) * 3)
    config.pruned_shape = shape.to_dict()
    order = OneWidth(config, measure)
    assert order.shape_after(0) == shape and order.shape_after(order.num_removals).layers[2].intermediate == 1
    present, least = (order.size_after(removals) for removals in (0, order.num_removals))
    target = least + part * (present - least)
    removals = order.removals_to(target)
    found = order.shape_after(removals)
    assert size_of(config, found, measure) == order.size_after(removals) <= target
    assert removals == 0 or order.size_after(removals - 1) > target
    assert len({layer.intermediate for layer in found.layers}) == 1
    assert found.stock_fields(config) is not None
    with pytest.raises(ValueError, match="cannot be reached"):
        order.removals_to(least - 1)


@pytest.mark.parametrize("name", SHAPES)
def test_one_width_needs_a_shape_of_a_stock_class(name):
    with pytest.raises(ValueError, match="stock class cannot express"):
        OneWidth(tiny_config("wavlm", "post", prunable=True, pruned_shape=SHAPES[name].to_dict()), PARAMETERS)


def test_cheap_units_go_first():
    """A price ten times as high makes a block keep more."""
    config = make_config()
    shape = PrunedShape.dense(config)
    growth = tuple(float(number) for number in range(1, 41))
    curves = [
        UnitCurve(layer_idx, "int", tuple(range(40)), growth, (price, 0.0))
        for layer_idx, price in enumerate((1.0, 10.0, 100.0))
    ]
    size = size_of(config, shape, PARAMETERS)
    found = allocate(config, shape, curves, size - 30 * 49, PARAMETERS)
    removed = [40 - layer.intermediate for layer in found.layers]
    assert removed == [28, 2, 0]


def estimated(order, max_size):
    return order.estimate.loss(order.num_removed(order.removals_to(max_size)))


@given(part=st.floats(0.05, 0.95), present=st.tuples(*[st.floats(0, 0.1)] * 2), seed=st.integers(0, 100))
def test_the_order_of_a_size_has_no_more_loss_than_that_of_equal_weights(part, present, seed):
    config = make_config()
    shape = PrunedShape.dense(config)
    estimate = LossEstimate(present, tuple(make_curves(shape, UNIT_SETS[-1], seed)))
    sizes = [size_of(config, one, PARAMETERS) for one in (shape, smallest_shape(shape, UNIT_SETS[-1]))]
    size = sizes[1] + part * (sizes[0] - sizes[1])
    found = cheapest_first(config, shape, estimate, PARAMETERS, size)
    equal = CheapestFirst(config, shape, estimate, PARAMETERS, (1.0, 1.0))
    assert estimated(found, size) <= estimated(equal, size) * (1 + 1e-12)
    assert found.size_after(found.removals_to(size)) <= size


def test_channels_stay_where_the_first_layer_has_no_loss_yet():
    """The first error of a layer costs most, as the root of its square: channels pay only where they free a lot."""
    config = make_config()
    shape = PrunedShape.dense(config)
    growth = tuple(float(number) for number in range(1, 12))
    size = size_of(config, shape, MACS)
    kept = {}
    for price in (1e-7, 1e-3):
        curves = (
            UnitCurve(0, "conv", tuple(range(11)), growth, (price, price)),
            UnitCurve(1, "int", tuple(range(40)), tuple(float(number) for number in range(1, 41)), (0.0, 1e-6)),
        )
        order = cheapest_first(config, shape, LossEstimate((0.0, 0.05), curves), MACS, 0.99 * size)
        found = order.shape_after(order.removals_to(0.99 * size))
        kept[price] = found.conv_channels[0], found.layers[1].intermediate
    assert kept[1e-7][0] < 12
    assert kept[1e-3][0] == 12 and kept[1e-3][1] < kept[1e-7][1]


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
@pytest.mark.parametrize("name", ["dense", "ragged"])
@pytest.mark.parametrize("family", FAMILIES)
def test_unit_size_is_what_one_unit_frees(family, name, measure):
    config = make_config(family)
    shape = shape_of(config, name)
    for curve in make_curves(shape, UNIT_SETS[-1]):
        smaller = remove_units(shape, {(curve.layer_idx, curve.unit): [3]})
        freed = size_of(config, shape, measure) - size_of(config, smaller, measure)
        assert unit_size(config, shape, curve, measure) == freed > 0


def test_dimensions_are_those_of_their_heads():
    removed = {(0, "qk"): [1, 3, 5], (0, "vo"): [3, 4, 8, 9], (2, "int"): [], (0, "int"): [2, 9]}
    shape = remove_units(RAGGED, removed)
    # Present widths are (1, 5, 0) and (3, 6, 2).
    assert shape.layers[0] == LayerShape(AttentionShape((0, 1, 3), (1, 2, 0), (3, 3, 1)), 9)
    assert shape.layers[1:] == RAGGED.layers[1:] and shape.conv_channels == CHANNELS


def test_a_head_without_values_goes_with_its_queries():
    shape = remove_units(RAGGED, {(0, "vo"): [0, 1, 2, 9, 10]})
    assert shape.layers[0].attention == AttentionShape((1,), (5,), (6,))


def test_blocks_that_lost_all_units_keep_their_bias():
    shape = smallest_shape(NARROW, ("qk", "vo", "int"))
    nothing = AttentionShape((), (), ())
    assert shape.layers == (LayerShape(nothing, 0), LayerShape(None, 0), LayerShape(nothing, None))
    assert shape.conv_channels == CHANNELS
    assert smallest_shape(NARROW, ("conv",)) == PrunedShape((1, 1, 20), NARROW.layers)
    assert smallest_shape(NARROW, ("qk",)).layers[2].attention == AttentionShape((0, 1, 2, 3), (0,) * 4, (1, 2, 3, 6))
    assert smallest_shape(NARROW, ()) == NARROW
