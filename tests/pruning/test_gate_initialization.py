"""Gates that start in the order of their units' weights."""

import pytest
import torch

from hf_prunable.modeling.gated import GatedMixin
from hf_prunable.modeling.gates import LOG_ALPHA_RANGE
from hf_prunable.modeling.units import PAPER_UNITS
from hf_prunable.pruning.gate_initialization import order_gates_by_weights_
from tests.helpers.tiny_models import FAMILIES, NORM_ORDERS, tiny_prunable


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_gates_start_in_the_order_of_the_weights(family, norm_order):
    model = tiny_prunable(family, norm_order)
    units = PAPER_UNITS if norm_order == "pre" else (*PAPER_UNITS, "conv")
    model.attach_gates(units)
    start = {name: gate.log_alpha.detach().clone() for name, gate in model.named_gates()}
    order_gates_by_weights_(model, 0.5)
    seen = set()
    for module in model.modules():
        for unit, gate in (getattr(module, "gates", None) or {}).items() if isinstance(module, GatedMixin) else ():
            seen.add(unit)
            if unit in ("mha", "ffn"):
                assert gate.log_alpha.item() == pytest.approx(gate.initial_log_alpha)
                continue
            by_norm = module.unit_norms(gate).argsort()
            assert (gate.log_alpha[by_norm].diff() >= 0).all() and gate.log_alpha.std() > 0
            moved = gate.log_alpha - gate.initial_log_alpha
            if gate.log_alpha.max() < LOG_ALPHA_RANGE[1]:
                assert moved.mean().item() == pytest.approx(0, abs=1e-5)
                assert moved.std(correction=0).item() == pytest.approx(0.5, rel=1e-5)
    assert seen == set(units)
    unmoved = tiny_prunable(family, norm_order)
    unmoved.attach_gates(units)
    order_gates_by_weights_(unmoved, 0.0)
    assert all(torch.equal(gate.log_alpha, start[name]) for name, gate in unmoved.named_gates())


def test_units_of_one_size_and_of_none():
    model = tiny_prunable("wavlm")
    model.attach_gates(("int",))
    dense = model.encoder.layers[0].feed_forward.output_dense
    gate = dense.gates["int"]
    dense.weight.data.fill_(0.1)
    order_gates_by_weights_(model, 1.0)
    assert (gate.log_alpha == gate.log_alpha[0]).all()
    dense.weight.data[:, 3] = 0.0
    order_gates_by_weights_(model, 1.0)
    assert gate.log_alpha.isfinite().all() and gate.log_alpha.argmin() == 3


@pytest.mark.parametrize("spread", [-1.0, float("nan"), float("inf")])
def test_a_spread_that_is_none(spread):
    model = tiny_prunable("wavlm")
    model.attach_gates()
    with pytest.raises(ValueError, match="it must be 0 or more"):
        order_gates_by_weights_(model, spread)
