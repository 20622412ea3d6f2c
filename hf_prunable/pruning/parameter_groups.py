"""Parameter groups of the optimizer: weights, gates and multipliers, each with its learning rate."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..modeling.gates import HardConcreteGate
from .arguments import PruningTrainingArguments
from .constraint import Lagrangian


# Adam's betas for the multipliers. With the usual second beta of 0.999, the large gradients of the time before the target
# is reached keep the multipliers' steps small afterwards: they decrease too slowly, the sparsity exceeds its target and
# gates run into their bounds.
MULTIPLIER_BETAS = (0.9, 0.95)


def parameter_groups(model: nn.Module, args: PruningTrainingArguments) -> list[dict[str, Any]]:
    """Groups the trained parameters of a `PruningObjective` for an optimizer of torch.

    The learning rate of the multipliers is lower than that of the gates. The gradient of the constraint is nearly the
    same for all units of one size; that of the loss differs between units. If the multipliers grow faster than gates
    move, the first outweighs the second, and all units of one size close together.

    Args:
        model: Objective, as a strategy such as FSDP has prepared it.
        args: Training arguments with the learning rates.

    Returns:
        A group of weights, which include the projections and have the optimizer's default learning rate; with gates, also
        a group of gates and one of multipliers, which ascend.
    """
    # Modules are asked, and not the names of parameters, which the wrappers of a strategy change.
    gate_ids, multiplier_ids = _parameter_ids(model, HardConcreteGate), _parameter_ids(model, Lagrangian)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gates = [parameter for parameter in trained if id(parameter) in gate_ids]
    multipliers = [parameter for parameter in trained if id(parameter) in multiplier_ids]
    weights = [parameter for parameter in trained if id(parameter) not in gate_ids | multiplier_ids]
    groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": args.weight_decay}]
    if gates:
        groups.append({"params": gates, "lr": args.gate_learning_rate, "weight_decay": 0.0})
        groups.append(
            {
                "params": multipliers,
                "lr": args.multiplier_learning_rate,
                "weight_decay": 0.0,
                "maximize": True,
                "betas": MULTIPLIER_BETAS,
            }
        )
    return groups


def _parameter_ids(model: nn.Module, module_class: type[nn.Module]) -> set[int]:
    modules = (module for module in model.modules() if isinstance(module, module_class))
    return {id(parameter) for module in modules for parameter in module.parameters()}
