"""Start of gates from statistics: the function stays, and the order is that of one-shot pruning."""

import copy

import pytest
import torch

from hf_prunable import Measure, OneShotConfig, compact
from hf_prunable.modeling.size import PARAMETERS
from hf_prunable.modeling.units import walk_gates
from hf_prunable.one_shot.gate_start import order_gates_by_one_shot_, orderable_gates, rotate_gated_heads_
from hf_prunable.one_shot.one_shot_pruning import OneShotPruning
from tests.helpers.tiny_models import FAMILIES, NORM_ORDERS, tiny_inputs, tiny_prunable


AUDIO = tiny_inputs(batch_size=6, samples=800, padded=False)["input_values"]
CONFIG = OneShotConfig(curve_clips=6, price_clips=6, batch_size=4, allow_few_frames=True)


def gated(family="wavlm", norm_order="post", units=("qk", "vo", "int"), **options):
    model = tiny_prunable(family, norm_order, **options)
    # Gates that start at 1 in evaluation, with room above them.
    model.attach_gates(units, initial_drop_rate=0.08)
    return model.eval()


def hidden_states(model):
    with torch.no_grad():
        return model(AUDIO, output_hidden_states=True).hidden_states


def assert_same_function(model, before):
    for found, expected in zip(hidden_states(model), before, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("norm_order", NORM_ORDERS)
def test_rotated_heads_compute_the_same_and_gates_stay(family, norm_order):
    model = gated(family, norm_order)
    before, weights = hidden_states(model), copy.deepcopy(model.state_dict())
    rotate_gated_heads_(model, AUDIO)
    assert_same_function(model, before)
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, weights[name])}
    parts = {name.split(".")[-2] for name in moved}
    assert parts == {"q_proj", "k_proj", "v_proj", "out_proj"}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("measure", [PARAMETERS, Measure("macs", 0.05)])
def test_gates_as_they_start_leave_the_shape_of_one_shot_pruning(family, norm_order, measure):
    model, target = gated(family, norm_order), 0.3
    before = hidden_states(model)
    pruning = OneShotPruning(tiny_prunable(family, norm_order), AUDIO, measure=measure, config=CONFIG)
    size = (1 - target) * measure.dense(model.config)
    order = pruning.order(size)
    wanted = order.shape_after(order.removals_to(size))
    order_gates_by_one_shot_(model, pruning.model, AUDIO, target=target, measure=measure, config=CONFIG)
    without_gates = copy.deepcopy(model)
    without_gates.detach_gates()
    assert_same_function(without_gates, before)
    found = compact(model, **{measure.option: target}, mac_seconds=measure.mac_seconds).config.shape
    for layer, wanted_layer in zip(found.layers, wanted.layers, strict=True):
        assert abs((layer.intermediate or 0) - (wanted_layer.intermediate or 0)) <= 1
        for name in ("query_key", "value_output"):
            widths, wanted_widths = (
                dict(zip(shape.attention.heads, getattr(shape.attention, name), strict=True))
                if shape.attention
                else {}
                for shape in (layer, wanted_layer)
            )
            # Compaction may keep a unit or two more that still fit.
            assert sum(abs(widths.get(head, 0) - wanted_widths.get(head, 0)) for head in range(4)) <= 2


def test_the_spread_scales_the_order_and_blocks_keep_their_gates():
    starts = {}
    for spread in (0.0, 0.1, 0.2):
        model = gated(units=("mha", "qk", "vo", "ffn", "int", "conv"))
        teacher = tiny_prunable("wavlm")
        order_gates_by_one_shot_(model, teacher, AUDIO, target=0.3, spread=spread, config=CONFIG)
        starts[spread] = {
            (number, found.unit): found.gate.log_alpha.detach() - found.gate.initial_log_alpha
            for number, found in enumerate(walk_gates(model))
        }
    for key, shift in starts[0.1].items():
        assert not starts[0.0][key].any()
        torch.testing.assert_close(starts[0.2][key], 2 * shift, rtol=1e-4, atol=1e-5)
        assert bool(shift.any()) == (key[1] not in ("mha", "ffn"))
    shifts = torch.cat([shift for (_, unit), shift in starts[0.1].items() if unit in ("qk", "vo", "int")])
    assert shifts.mean().abs() < 0.03 and 0.08 < shifts.std() < 0.12


def test_gates_that_statistics_do_not_order_are_refused():
    model = gated(units=("mha", "ffn"))
    with pytest.raises(ValueError, match="gates on mha, ffn, but statistics order only qk, vo, int, conv"):
        orderable_gates(model)
    with pytest.raises(ValueError, match="`spread` is -1.0"):
        order_gates_by_one_shot_(gated(), tiny_prunable("wavlm"), AUDIO, target=0.3, spread=-1.0, config=CONFIG)
