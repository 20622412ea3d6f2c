"""Gates beside the target of a cut: far from it, not trained at all, or where training has led them."""

import pytest
import torch

from hf_prunable import Measure, compact, deterministic_sparsity, expected_sparsity
from hf_prunable.modeling.gates import LOG_ALPHA_RANGE
from hf_prunable.modeling.units import DEFAULT_UNITS, UNITS
from hf_prunable.pruning.decisions import decide_at_target
from hf_prunable.pruning.gate_initialization import order_gates_by_weights_
from hf_prunable.pruning.gate_pruning import compact_student
from hf_prunable.pruning.gate_sparsity import SETTLED_TOLERANCE, GateSparsity
from hf_prunable.pruning.student import Student
from tests.helpers.gated_models import dense
from tests.helpers.tiny_models import FAMILIES, randomize_


def settled(model, target, measure):
    """The model with gates as training leaves them: at the ends of their range, the best of them open up to a target."""
    randomize_(model, seed=1)
    decisions = decide_at_target(model, target, measure)
    low, high = LOG_ALPHA_RANGE
    for gate, is_open in decisions.is_open.items():
        gate.log_alpha.data = torch.where(is_open, high, low)
    return model.eval()


def new(family, units=DEFAULT_UNITS):
    model = dense(family)
    model.attach_gates(units)
    return model.eval()


@pytest.mark.parametrize("units", [DEFAULT_UNITS, UNITS, ("mha", "ffn")])
@pytest.mark.parametrize("family", FAMILIES)
def test_gates_that_never_learned_are_named(family, units, caplog):
    model = new(family, units)
    small = compact(model, 0.3)
    assert small.num_parameters() <= 0.7 * model.config.dense_num_parameters
    (warning,) = [record.getMessage() for record in caplog.records if "expected sparsity" in record.getMessage()]
    assert warning.startswith(
        "The target is a sparsity of 0.3000 in parameters, but the expected sparsity of the gates is "
        f"{expected_sparsity(model).item():.4f}, and their deterministic values remove 0.0000. The gates have not learned: "
    )


def test_gates_that_never_learned_are_named_near_their_target_too():
    gates = GateSparsity.of(new("wavlm"), 0.01)
    assert gates.deterministic == 0 and "have not learned" in gates.warning and not gates.have_learned


def test_gates_in_the_order_of_the_weights_are_far_from_the_target():
    model = new("wavlm")
    order_gates_by_weights_(model, 0.5)
    gates = GateSparsity.of(model, 0.3)
    assert gates.have_learned and "against their gates" in gates.warning and "not learned" not in gates.warning


@pytest.mark.parametrize("option", ["target_sparsity", "target_macs"])
@pytest.mark.parametrize("family", FAMILIES)
def test_settled_gates_warn_at_another_target_only(family, option, caplog):
    measure = Measure() if option == "target_sparsity" else Measure("macs", 10.0)
    target = 0.4 if option == "target_sparsity" else 0.2
    model = settled(new(family), target, measure)
    gates = GateSparsity.of(model, target, measure)
    assert gates.target == target and gates.have_learned and gates.warning is None
    assert gates.expected == pytest.approx(expected_sparsity(model, measure).item(), abs=1e-7)
    assert gates.deterministic == deterministic_sparsity(model, measure)
    compact(model, **{option: target})
    assert not caplog.records
    compact(model, **{option: target - 2 * SETTLED_TOLERANCE})
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    for figure in (target - 2 * SETTLED_TOLERANCE, gates.expected, gates.deterministic):
        assert f"{figure:.4f}" in record.getMessage()
    assert str(measure) in record.getMessage()


def test_without_a_target_gates_decide_alone(caplog):
    compact(new("wavlm"))
    assert not caplog.records


@pytest.mark.parametrize("which", ["expected", "deterministic"])
def test_either_sparsity_may_be_the_one_that_is_far(which):
    """Just below the limit a gate is closed and probably open; just above it is open and often closed."""
    model = new("wavlm")
    for _, gate in model.named_gates():
        gate.log_alpha.data.fill_(-2.41)
        gate.log_alpha.data[::2] = LOG_ALPHA_RANGE[1]
    gates = GateSparsity.of(model, 0.5)
    other = "deterministic" if which == "expected" else "expected"
    assert abs(gates.expected - gates.deterministic) > SETTLED_TOLERANCE
    assert GateSparsity.of(model, getattr(gates, other)).warning is not None


def test_a_compacted_student_keeps_what_its_gates_were():
    model = new("hubert")
    student = compact_student(Student(model), 0.3)
    assert student.gate_sparsity == GateSparsity.of(model, 0.3) and student.gate_sparsity.warning
