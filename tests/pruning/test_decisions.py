"""Which units stay: the target is met to the smallest unit, by the rank of the gates, or refused by name."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hf_prunable
from hf_prunable import Measure, compact, deterministic_sparsity, load_prunable, sparsity_ceiling
from hf_prunable.modeling.shape import LayerShape, PrunedShape
from hf_prunable.modeling.size import PARAMETERS, UnitCounts, count_parameters
from hf_prunable.modeling.units import PAPER_UNITS, UNITS
from hf_prunable.pruning.decisions import TARGET_TOLERANCE, GateDecisions, check_target, decide_at_target
from tests.helpers.gated_models import (
    CLOSED,
    HEAD_DIM,
    INTERMEDIATE,
    NUM_HEADS,
    NUM_LAYERS,
    SIZE,
    assert_same,
    both_norm_orders,
    dense,
    gate_of,
    gated,
    set_pattern,
)
from tests.helpers.tiny_models import FAMILIES, randomize_


MACS = Measure("macs")


def assert_meets(model, target, measure=PARAMETERS):
    """The target is met, with no unit left out that would still fit."""
    size = measure.dense(model.config)
    decisions = decide_at_target(model, target, measure)
    gap = (1 - target) * size - decisions.size(measure)
    # Sizes are whole numbers: what is smaller is rounding of the target.
    assert gap > -1e-6
    smallest = min(_growths(decisions, measure), default=0)
    assert gap < max(TARGET_TOLERANCE * size, smallest)
    assert target - 1e-12 <= decisions.sparsity(measure) <= target + max(1e-3, smallest / size)
    return decisions


def _growths(decisions, measure):
    """What opening one more unit would add, for all closed fine units that would add anything, largest models aside."""
    if len(decisions.fine_gates) > 20 or sum(gate.num_gates for gate in decisions.fine_gates) > 1000:
        return
    size = decisions.size(measure)
    for gate in decisions.fine_gates:
        for number in (~decisions.is_open[gate]).nonzero().flatten().tolist():
            decisions.is_open[gate][number] = True
            growth = decisions.size(measure) - size
            decisions.is_open[gate][number] = False
            if growth:
                yield growth


def assert_meets_to_a_thousandth(model):
    """For models large enough, with gates at random."""
    generator = torch.Generator().manual_seed(0)
    for _, gate in model.named_gates():
        gate.log_alpha.data = 3 * torch.randn(gate.num_gates, generator=generator)
    for measure in (PARAMETERS, MACS):
        for target in (0.3, 0.5, 0.72):
            if target < sparsity_ceiling(model, measure):
                assert target <= assert_meets(model, target, measure).sparsity(measure) <= target + 1e-3
    small = compact(model, 0.5)
    assert 0.5 <= 1 - small.num_parameters() / model.config.dense_num_parameters <= 0.501


@both_norm_orders
@pytest.mark.parametrize("units", (PAPER_UNITS, UNITS, ("head", "int")), ids=("paper", "all", "head+int"))
def test_target_is_met_on_tiny_models(family, norm_order, units):
    model = dense(family, norm_order)
    model.attach_gates(units)
    randomize_(model, seed=1)
    for target in (0.3, 0.5, 0.72):
        if target < sparsity_ceiling(model):
            small = compact(model, target)
            assert small.num_parameters() == assert_meets(model, target).size()


@both_norm_orders
@given(data=st.data())
def test_target_in_multiply_accumulates_is_met(family, norm_order, data):
    model = dense(family, norm_order)
    model.attach_gates(data.draw(st.sampled_from((UNITS, PAPER_UNITS, ("head", "int"), ("vo", "conv")))))
    randomize_(model, seed=data.draw(st.integers(0, 2**32)))
    measure = Measure("macs", data.draw(st.sampled_from((0.05, 1.0, 10.0))))
    part = data.draw(st.floats(0.05, 1.0))
    assert_meets(model, part * sparsity_ceiling(model, measure), measure)


@pytest.mark.parametrize("units", (PAPER_UNITS, UNITS), ids=("paper", "all"))
def test_target_is_met_on_a_trained_model(shared_models, units):
    model = load_prunable(shared_models / "wavlm-mini")
    model.attach_gates(units)
    if units == PAPER_UNITS:
        assert sparsity_ceiling(model) == pytest.approx(0.89081, abs=5e-6)
        with pytest.raises(ValueError, match=r"at most 0\.8908 of this model"):
            compact(model, 0.89082)
    assert_meets_to_a_thousandth(model)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("units", (PAPER_UNITS, UNITS), ids=("paper", "all"))
def test_target_is_met_at_base_size(family, units):
    name = {"wavlm": "WavLM", "hubert": "Hubert", "wav2vec2": "Wav2Vec2"}[family]
    config = getattr(hf_prunable, f"Prunable{name}Config")()
    model = getattr(hf_prunable, f"Prunable{name}Model")(config)
    model.attach_gates(units)
    if family == "wavlm" and units == PAPER_UNITS:
        assert sparsity_ceiling(model) == pytest.approx(0.90089, abs=5e-6)
        with pytest.raises(ValueError, match=r"at most 0\.9008 of this model"):
            compact(model, 0.9009)
    assert_meets_to_a_thousandth(model)


def test_ceiling_of_wavlm_base():
    config = hf_prunable.PrunableWavLMConfig()
    empty = PrunedShape(tuple(config.conv_dim), (LayerShape(None, None),) * 12)
    assert config.dense_num_parameters == 94_381_936
    removed = config.dense_num_parameters - count_parameters(config, UnitCounts.of(empty))
    # Both blocks of all layers, and with the last head the whole position bias: table, gates and their constants.
    assert removed == 85_017_600 + 320 * 12 + 12 * (8 * (64 + 1) + 12)
    assert removed / config.dense_num_parameters == pytest.approx(0.90089, abs=5e-6)


def test_target_above_the_ceiling_is_refused_and_named():
    model = gated(dense("wavlm"), ("int", "qk"))
    ceiling = sparsity_ceiling(model)
    with pytest.raises(
        ValueError, match=r"removing all units of the kinds int, qk removes at most 0\.\d{4} of this model"
    ) as error:
        compact(model, ceiling + 0.001)
    # What the message offers is rounded down, so that it can be had.
    named = float(re.search(r"at most (\S+)", str(error.value))[1])
    assert ceiling - 1e-4 < named <= ceiling
    compact(model, named)
    # At the ceiling every gate is closed, whatever its value.
    at_ceiling = 1 - compact(model, ceiling).num_parameters() / model.config.dense_num_parameters
    assert at_ceiling == pytest.approx(ceiling, abs=1e-12)


def test_errors_name_the_measure():
    model = gated(dense("wavlm"), ("int", "qk"))
    ceiling = sparsity_ceiling(model, MACS)
    with pytest.raises(ValueError, match=r"`target_macs` is .* counted in multiply-accumulates of a 10 s clip"):
        check_target(model, ceiling + 0.001, MACS)
    check_target(model, ceiling, MACS)
    with pytest.raises(ValueError, match=r"`target_macs` must lie.* multiply-accumulates of a 10 s clip to remove"):
        check_target(model, 1.5, MACS)
    with pytest.raises(ValueError, match=r"`target_sparsity` must lie.* encoder's parameters to remove"):
        check_target(model, 1.5)


@pytest.mark.parametrize("target", (0, 1, -0.2, 1.5, 72, "0.5", float("nan"), None, [0.5], 0.5j))
def test_target_outside_0_to_1_is_refused(target):
    with pytest.raises(
        ValueError, match=rf"`target_sparsity` must lie between 0 and 1, but is {re.escape(repr(target))}"
    ):
        check_target(gated(dense("hubert")), target)


def test_target_that_was_passed_before_is_refused():
    small = compact(gated(dense("hubert")), target_sparsity=0.5)
    small.attach_gates()
    with pytest.raises(ValueError, match=r"0\.3, and 0\.5\d* of the original dense encoder is gone already"):
        compact(small, target_sparsity=0.3)


def test_what_is_cut_leaves_the_decisions_alone():
    model = gated(dense("wavlm"), ("conv",), log_alpha=CLOSED)
    decisions = GateDecisions(model)
    assert decisions.cut().shape.conv_channels == (1, 1, 20)
    assert not any(is_open.any() for is_open in decisions.is_open.values())


def test_units_are_ranked_by_log_alpha_and_ties_by_weight_norm():
    model = gated(dense("wav2vec2"), ("int",))
    for layer in range(NUM_LAYERS):
        gate_of(model, layer, "int").log_alpha.data = torch.linspace(-1, 1, INTERMEDIATE).round(decimals=1)
    per_unit = 2 * SIZE + 1
    num_kept = 50
    target = 1 - (model.num_parameters() - (NUM_LAYERS * INTERMEDIATE - num_kept) * per_unit) / model.num_parameters()
    decisions = decide_at_target(model, target - 1e-9)
    rank = []
    for layer in range(NUM_LAYERS):
        norms = model.encoder.layers[layer].feed_forward.output_dense.weight.norm(dim=0)
        log_alpha = gate_of(model, layer, "int").log_alpha
        rank += [(log_alpha[i].item(), norms[i].item(), layer, i) for i in range(INTERMEDIATE)]
    expected = {(layer, i) for _, _, layer, i in sorted(rank, reverse=True)[:num_kept]}
    is_open = [decisions.is_open[gate_of(model, layer, "int")] for layer in range(NUM_LAYERS)]
    assert {(layer, i) for layer, kept in enumerate(is_open) for i in kept.nonzero().flatten().tolist()} == expected
    cut = sorted(rank, reverse=True)
    assert cut[num_kept - 1][0] == cut[num_kept][0], "the cut has to fall into a tie, or the test shows nothing"
    small = compact(model, target - 1e-9)
    for layer, kept in enumerate(is_open):
        weight = model.encoder.layers[layer].feed_forward.intermediate_dense.weight[kept]
        assert torch.equal(small.encoder.layers[layer].feed_forward.intermediate_dense.weight, weight)


def test_a_unit_kept_only_for_the_target_carries_0():
    model = gated(dense("wavlm"), ("mha", "ffn", "qk", "vo", "int"))
    for layer in range(NUM_LAYERS):
        gate_of(model, layer, "int").log_alpha.data = torch.linspace(-6.0, -3.0, INTERMEDIATE)
        gate_of(model, layer, "vo").log_alpha.data[::2] = -3.0
        gate_of(model, layer, "qk").log_alpha.data[::2] = -3.5
    target = 0.1
    assert deterministic_sparsity(model) > target + 0.1
    small = compact(model, target)
    assert 1 - small.num_parameters() / model.config.dense_num_parameters < target + 0.01
    for layer in small.encoder.layers:
        assert layer.feed_forward.intermediate > 0
        assert not layer.feed_forward.output_dense.weight.any()
        assert layer.feed_forward.intermediate_dense.weight.any()
        zero_columns = (layer.attention.out_proj.weight == 0).all(0)
        assert zero_columns.sum() == NUM_HEADS * HEAD_DIM / 2
    # So the outputs are still those of the masked model.
    assert_same(model, small)


@both_norm_orders
def test_a_model_larger_than_its_gates_ask_for_still_computes_the_same(family, norm_order):
    model = dense(family, norm_order)
    model.attach_gates(("vo", "qk", "int"))
    model.eval()
    set_pattern(model, ("mixed",) * 20, seed=5)
    target = deterministic_sparsity(model) - 0.1
    assert_same(model, compact(model, target))


def test_blocks_that_overshoot_are_opened_from_the_best():
    model = gated(dense("wavlm"), PAPER_UNITS)
    ranks = {
        (0, "mha"): -3.0,
        (0, "ffn"): -6.0,
        (1, "mha"): -5.5,
        (1, "ffn"): -2.5,
        (2, "mha"): -4.0,
        (2, "ffn"): -3.5,
    }
    for (layer, unit), log_alpha in ranks.items():
        gate_of(model, layer, unit).log_alpha.data.fill_(log_alpha)
    assert deterministic_sparsity(model) > 0.5
    by_rank = sorted(ranks, key=ranks.get, reverse=True)
    previous = 0
    for target in (0.6, 0.5, 0.4, 0.3, 0.2):
        layers = assert_meets(model, target).cut().shape.layers
        is_there = [
            layers[layer].attention is not None if unit == "mha" else layers[layer].intermediate is not None
            for layer, unit in by_rank
        ]
        num_open = sum(is_there)
        assert is_there == [True] * num_open + [False] * (len(ranks) - num_open)
        assert num_open >= previous
        previous = num_open
    assert num_open > 2


def test_open_blocks_that_leave_too_much_are_closed_from_the_worst():
    model = gated(dense("hubert"), ("mha", "ffn"))
    ranks = {(0, "mha"): 3.0, (0, "ffn"): 0.5, (1, "mha"): 1.5, (1, "ffn"): 2.5, (2, "mha"): 1.0, (2, "ffn"): 2.0}
    for (layer, unit), log_alpha in ranks.items():
        gate_of(model, layer, unit).log_alpha.data.fill_(log_alpha)
    small = compact(model, 0.2)
    gone = {(number, "mha") for number, layer in enumerate(small.config.shape.layers) if layer.attention is None}
    gone |= {(number, "ffn") for number, layer in enumerate(small.config.shape.layers) if layer.intermediate is None}
    assert gone == set(sorted(ranks, key=ranks.get)[: len(gone)])
    sizes = {"mha": 4 * (SIZE + 1) * SIZE, "ffn": (2 * SIZE + 1) * INTERMEDIATE + SIZE}
    removed = sum(sizes[unit] for _, unit in gone)
    worst_kept = max(gone, key=ranks.get)
    assert removed >= 0.2 * model.config.dense_num_parameters > removed - sizes[worst_kept[1]]
