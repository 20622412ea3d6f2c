"""What a target is measured in, and which of two targets was given."""

import pytest
import torch

from hf_prunable import Measure, deterministic_sparsity, expected_sparsity, sparsity_ceiling
from hf_prunable.modeling.size import UnitCounts, count_macs, count_parameters
from hf_prunable.modeling.target import PARAMETERS, choose_target
from tests.helpers.gated_models import dense, gate_of, gated
from tests.helpers.tiny_models import FAMILIES, tiny_config


@pytest.mark.parametrize("family", FAMILIES)
def test_a_measure_counts_what_its_name_says(family):
    config = tiny_config(family, prunable=True)
    counts = UnitCounts.of(config.shape)
    assert PARAMETERS == Measure("parameters")
    assert PARAMETERS.count(config, counts) == count_parameters(config, counts) == PARAMETERS.dense(config)
    for seconds in (1.0, 10.0):
        measure = Measure("macs", seconds)
        assert measure.count(config, counts) == count_macs(config, counts, seconds) == measure.dense(config)
        assert measure.sparsity(config, counts) == 0
    assert Measure("macs") == Measure("macs", 10.0)


def test_the_dense_size_is_that_of_all_original_layers():
    truncated = tiny_config("wavlm", prunable=True, num_hidden_layers=2, dense_num_hidden_layers=5)
    complete = tiny_config("wavlm", prunable=True, num_hidden_layers=5)
    for measure in (PARAMETERS, Measure("macs")):
        assert measure.dense(truncated) == measure.dense(complete)
        assert 0 < measure.sparsity(truncated, UnitCounts.of(truncated.shape)) < 1


def test_measures_are_named_in_words():
    assert str(PARAMETERS) == "parameters"
    assert str(Measure("macs")) == "multiply-accumulates of a 10 s clip"
    assert str(Measure("macs", 2.5)) == "multiply-accumulates of a 2.5 s clip"


def test_an_unknown_measure_is_refused():
    with pytest.raises(ValueError, match=r"one of \('parameters', 'macs'\), but is 'flops'"):
        Measure("flops")


def test_a_clip_without_a_frame_is_refused():
    with pytest.raises(ValueError, match="too short for one frame"):
        Measure("macs", 0.0).dense(tiny_config("wavlm", prunable=True))


def test_a_target_brings_its_measure():
    assert choose_target(0.7, None) == (0.7, PARAMETERS)
    assert choose_target(None, 0.5) == (0.5, Measure("macs"))
    assert choose_target(None, 0.5, 2.0) == (0.5, Measure("macs", 2.0))
    assert choose_target(None, None) == (None, PARAMETERS)
    with pytest.raises(
        ValueError, match=r"`target_sparsity` is 0\.7 and `target_macs` is 0\.5.*Leave one of them out"
    ):
        choose_target(0.7, 0.5)


@pytest.mark.parametrize("measure", (PARAMETERS, Measure("macs", 1.0)), ids=str)
def test_sparsities_agree_where_gates_are_decided(measure):
    model = gated(dense("wavlm"), log_alpha=1000.0)
    assert deterministic_sparsity(model, measure) == 0
    gate_of(model, 1, "int").log_alpha.data[::2] = -1000.0
    gate_of(model, 2, "mha").log_alpha.data[:] = -1000.0
    half_way = deterministic_sparsity(model, measure)
    assert expected_sparsity(model, measure).item() == pytest.approx(half_way, abs=1e-6)
    for _, gate in model.named_gates():
        gate.log_alpha.data = torch.full_like(gate.log_alpha, -1000.0)
    assert half_way < deterministic_sparsity(model, measure) == sparsity_ceiling(model, measure)
