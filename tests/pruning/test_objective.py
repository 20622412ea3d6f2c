"""The objective: which losses take part, and which parameters wait for a gradient."""

import copy

import pytest
import torch

from hf_prunable.pruning.constraint import Lagrangian
from hf_prunable.pruning.distillation import Distillation
from hf_prunable.pruning.objective import PruningObjective
from hf_prunable.pruning.objective_arguments import ObjectiveArguments
from hf_prunable.pruning.student import NOISE_OFF
from tests.helpers.tiny_models import FAMILIES, tiny_inputs, tiny_prunable


@pytest.mark.parametrize(
    "options, message",
    [
        ({"objective": "ctc"}, "`objective` is 'ctc'; choose from 'distillation', 'task', 'both'"),
        ({"objective": "task"}, "Give a task, 'ctc' or 'classification'"),
        ({"objective": "distillation", "task": "ctc"}, "and none with 'distillation'"),
    ],
)
def test_objectives_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ObjectiveArguments(**options)


def make(family, distills, task_weight, **config):
    teacher = tiny_prunable(family, seed=1, **NOISE_OFF)
    student = tiny_prunable(family, head="classification", num_labels=3, **NOISE_OFF, **config)
    student.attach_gates()
    distillation = Distillation(teacher, student.config) if distills else None
    return PruningObjective(student, distillation, Lagrangian(), task_weight).train()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("distills, task_weight", [(False, 1.0), (True, 0.5)])
def test_parts_add_up_and_every_parameter_gets_a_gradient(family, distills, task_weight):
    objective = make(family, distills, task_weight)
    inputs = tiny_inputs(batch_size=2, samples=400, padded=True)
    outputs = objective(**inputs, labels=torch.tensor([0, 2]), target=0.3)
    parts = [outputs[name] for name in ("distillation_loss", "task_loss") if name in outputs]
    assert len(parts) == 1 + distills and all(part > 0 for part in parts)
    torch.testing.assert_close(outputs["objective_loss"], sum(parts))
    # The multipliers start at 0.
    torch.testing.assert_close(outputs["loss"].detach(), outputs["objective_loss"])
    outputs["loss"].backward()
    without = [name for name, value in objective.named_parameters() if value.requires_grad and value.grad is None]
    assert without == []


def test_padding_takes_no_part_in_distillation():
    objective = make("wav2vec2", True, 1.0, feature_norm="layer").eval()
    inputs = tiny_inputs(batch_size=1, samples=400, padded=False)
    inputs["attention_mask"] = torch.ones_like(inputs["input_values"], dtype=torch.long)
    padded = {name: torch.nn.functional.pad(value, (0, 120)) for name, value in inputs.items()}
    teacher = tiny_prunable("wav2vec2", seed=1, feature_norm="layer", **NOISE_OFF)
    objective.distillation = Distillation(teacher, objective.student.config)
    with torch.no_grad():
        alone, among_padding = (
            objective(**copy.copy(clips), labels=torch.tensor([1]))["distillation_loss"] for clips in (inputs, padded)
        )
    torch.testing.assert_close(among_padding, alone, rtol=1e-4, atol=1e-5)
