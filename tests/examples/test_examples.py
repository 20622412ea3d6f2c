"""The options that the README's first line runs with."""

from __future__ import annotations

from transformers import HfArgumentParser

from hf_prunable.data.arguments import SpeechArguments
from hf_prunable.pruning.arguments import PruningArguments
from hf_prunable.pruning.objective import ObjectiveArguments
from hf_prunable.pruning.trainer import GATE_DISTANCE
from hf_prunable.pruning.training_arguments import PruningTrainingArguments
from tests.helpers.processes import ROOT


def test_demo_options_are_all_known_and_let_the_gates_settle():
    parser = HfArgumentParser((PruningArguments, SpeechArguments, ObjectiveArguments, PruningTrainingArguments))
    options, _, _, training = parser.parse_yaml_file(str(ROOT / "examples" / "demo.yaml"))
    assert (ROOT / options.model_name_or_path / "model.safetensors").is_file()
    assert options.target_sparsity == [0.72]
    steps_at_target = training.max_steps * (1 - training.sparsity_warmup_steps)
    assert training.gate_learning_rate * steps_at_target >= GATE_DISTANCE
