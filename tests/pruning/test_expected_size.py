"""Expected size: equal to the mean size over sampled masks, differentiable, and driven to a target."""

import pytest
import torch

from hf_prunable import Measure, compact, deterministic_sparsity, expected_sparsity
from hf_prunable.modeling.gates import LOG_ALPHA_RANGE
from hf_prunable.modeling.size import UnitCounts, count_macs, count_parameters
from hf_prunable.modeling.units import PAPER_UNITS, UNITS
from hf_prunable.pruning.decisions import GateDecisions
from hf_prunable.pruning.expected_size import expected_counts
from tests.helpers.tiny_models import FAMILIES, NORM_ORDERS, randomize_, tiny_prunable


MACS = Measure("macs")


NUM_SAMPLES = 200
UNIT_SETS = {
    "paper": PAPER_UNITS,
    "all": UNITS,
    "heads": ("head", "int"),
    "blocks": ("mha", "ffn"),
    "conv": ("conv",),
    "vo": ("vo",),
    "qk": ("qk",),
    # Without blocks, whose coming and going is so much of the variance that it hides a wrong term.
    "dimensions": ("qk", "vo"),
    "heads and dimensions": ("head", "qk", "vo"),
}


# Added to log_alpha where a head or a block has so many gates that all of them would never be closed at once.
SHIFTS = {"vo": -1.5, "int": -3.0}


def gated(family, norm_order="post", units=UNITS, low=-4.0, high=0.5, seed=0, **config):
    """A tiny model with gates between `low` and `high`, where heads, channels and blocks come and go."""
    model = tiny_prunable(family, norm_order, feature_norm="group", **config)
    model.attach_gates(units)
    generator = torch.Generator().manual_seed(seed)
    for name, gate in model.named_gates():
        shift = SHIFTS.get(name.rsplit(".", 1)[1], 0.0)
        gate.log_alpha.data = low + shift + (high - low) * torch.rand(gate.num_gates, generator=generator)
    return model


def sampled_counts(model, num_samples=NUM_SAMPLES, seed=0):
    """Unit counts after compaction to masks as training samples them."""
    torch.manual_seed(seed)
    decisions = GateDecisions(model)
    for _ in range(num_samples):
        for gate in decisions.is_open:
            decisions.set(gate, gate.train()() > 0)
        yield UnitCounts.of(decisions.cut().shape)


def assert_within_standard_errors(samples, expected):
    samples = torch.tensor(samples, dtype=torch.float64)
    error = samples.std() / len(samples) ** 0.5
    assert error > 0
    assert (samples.mean() - expected).abs() < 4 * error


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("units", UNIT_SETS.values(), ids=UNIT_SETS)
def test_expected_size_is_the_mean_over_sampled_masks(family, norm_order, units):
    model = gated(family, norm_order, units, adapter_attn_dim=5 if family != "wavlm" else None)
    config = model.config
    counts = list(sampled_counts(model))
    for count in (count_parameters, count_macs):
        assert_within_standard_errors([count(config, one) for one in counts], count(config, expected_counts(model)))


@pytest.mark.parametrize("family", FAMILIES)
def test_expected_size_of_a_pruned_model_is_the_mean_too(family):
    model = compact(gated(family, low=-3.0, high=4.0, seed=1))
    shape = model.config.shape
    assert not shape.is_dense(model.config)
    model.attach_gates(UNITS)
    generator = torch.Generator().manual_seed(2)
    for _, gate in model.named_gates():
        gate.log_alpha.data = 4.5 * torch.rand(gate.num_gates, generator=generator) - 4.0
    dense = model.config.dense_num_parameters
    sparsities = [1 - count_parameters(model.config, counts) / dense for counts in sampled_counts(model)]
    assert_within_standard_errors(sparsities, expected_sparsity(model).item())


@pytest.mark.parametrize("family", FAMILIES)
def test_sampled_masks_count_as_the_models_they_make(family):
    model = gated(family)
    decisions = GateDecisions(model)
    for gate in decisions.is_open:
        is_open = gate.train()() > 0
        gate.log_alpha.data = torch.where(is_open, 4.0, -4.0)
        decisions.set(gate, is_open)
    assert compact(model).num_parameters() == decisions.size()


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_gate_gets_a_gradient(family, norm_order):
    # The gradient of one more unit is minus its size: negative for all of them.
    model = gated(family, norm_order, low=-1.0, high=1.0)
    expected_sparsity(model).backward()
    for name, gate in model.named_gates():
        gradient = gate.log_alpha.grad
        assert torch.isfinite(gradient).all(), name
        assert (gradient < 0).all(), name
    assert all(p.grad is None for name, p in model.named_parameters() if "log_alpha" not in name)


@pytest.mark.parametrize("log_alpha", (*LOG_ALPHA_RANGE, -30.0, 30.0, -1000.0, 1000.0))
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_is_finite_at_saturation(family, log_alpha):
    model = gated(family)
    for number, (_, gate) in enumerate(model.named_gates()):
        gate.log_alpha.data.fill_(log_alpha)
        if number % 2:
            gate.log_alpha.data[0] = 0.0
    sparsity = expected_sparsity(model)
    sparsity.backward()
    assert torch.isfinite(sparsity)
    assert all(torch.isfinite(gate.log_alpha.grad).all() for _, gate in model.named_gates())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_gates_without_doubt_have_the_size_of_their_shape(family, norm_order, seed):
    model = gated(family, norm_order)
    generator = torch.Generator().manual_seed(seed)
    for _, gate in model.named_gates():
        is_open = torch.rand(gate.num_gates, generator=generator) < 0.5
        gate.log_alpha.data = torch.where(is_open, 1000.0, -1000.0)
    config = model.config
    small = compact(model)
    assert count_parameters(config, expected_counts(model)) == small.num_parameters()
    counts = UnitCounts.of(small.config.shape)
    # Beyond 2 ** 24, float32 counts in twos.
    assert count_macs(config, expected_counts(model)).item() == pytest.approx(count_macs(config, counts), rel=1e-6)
    assert expected_sparsity(model).item() == pytest.approx(deterministic_sparsity(model), abs=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_expected_sparsity_of_a_head_model_is_that_of_its_encoder(family):
    model = tiny_prunable(family, head="ctc")
    model.attach_gates()
    randomize_(model)
    base = model.base_model
    assert expected_sparsity(model).item() == expected_sparsity(base).item()


def test_a_model_without_gates_has_the_sparsity_of_its_shape():
    model = tiny_prunable("wavlm")
    assert expected_sparsity(model).item() == 0
    small = compact(gated("wavlm", low=-4.0, high=4.0))
    assert expected_sparsity(small).item() == pytest.approx(
        1 - small.num_parameters() / small.config.dense_num_parameters, abs=1e-6
    )


def test_sparsity_in_multiply_accumulates():
    model = gated("wavlm")
    config = model.config
    macs = expected_sparsity(model, MACS)
    expected = 1 - count_macs(config, expected_counts(model)) / count_macs(config, config.dense_counts)
    assert macs.item() == expected.item()
    assert macs.item() != expected_sparsity(model).item()

    # Attention grows faster than the clip, so another length is another sparsity.
    assert macs.item() != expected_sparsity(model, Measure("macs", mac_seconds=1.0)).item()
    macs.backward()
    assert all((gate.log_alpha.grad < 0).all() for _, gate in model.named_gates())
