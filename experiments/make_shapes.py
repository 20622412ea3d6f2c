"""Makes the shapes of the benchmarks, with gates learned on a small model.

    python -m experiments make_shapes --teacher wavlm-mini --dataset_name LibriSpeech/train-clean-100 \
        --output_dir outputs/gates

Gates are trained in two runs of some minutes, which are kept in `--output_dir`. The learned gates are scaled to the models in
`MODELS`, which have random weights, and decide which units are kept at the target. Further options are the Trainer's; the
defaults are those of the experiment evidence.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoFeatureExtractor, HfArgumentParser, PreTrainedConfig, set_seed
from transformers.utils import logging

from benchmarks.shape_files import SHAPES_FOLDER, ShapeFile
from experiments.compared_students import gated_by_weights
from experiments.scaled_gates import scale_gates_
from hf_prunable.data.arguments import SpeechArguments, load_speech
from hf_prunable.modeling.auto import prunable_class
from hf_prunable.modeling.loading import load_prunable
from hf_prunable.modeling.size import PARAMETERS, Measure, UnitCounts, count_macs, count_parameters
from hf_prunable.modeling.units import DEFAULT_UNITS
from hf_prunable.pruning.arguments import PruningTrainingArguments
from hf_prunable.pruning.decisions import decide_at_target
from hf_prunable.pruning.objective_arguments import ObjectiveArguments
from hf_prunable.pruning.stages import TrainingStages
from hf_prunable.pruning.training_data import TrainingData


logger = logging.get_logger("hf_prunable.benchmarks")

# Fields of the stock configuration of large models that differ from the defaults, which are those of base models.
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "do_stable_layer_norm": True,
    "feat_extract_norm": "layer",
}
MODELS: dict[str, dict[str, Any]] = {
    "wavlm-base": {"model_type": "wavlm"},
    "hubert-base": {"model_type": "hubert"},
    "wav2vec2-base": {"model_type": "wav2vec2"},
    "wavlm-large": {"model_type": "wavlm", **LARGE},
}
BASE_MODELS = tuple(name for name in MODELS if name.endswith("-base"))
TRAINING = {
    "max_steps": 400,
    "per_device_train_batch_size": 4,
    "learning_rate": 3e-4,
    "warmup_steps": 0.1,
    "gate_learning_rate": 0.09,
    "multiplier_learning_rate": 0.02,
    "sparsity_warmup_steps": 0.4,
}
CROP_SECONDS = 2.0


@dataclass(frozen=True)
class Plan:
    """Settings of a shape.

    Attributes:
        units: Kinds of units with gates.
        target: Fraction of the dense model to remove, between 0 and 1.
        measure: What the target counts.
        models: Names of the models to make the shape for.
        gates_of: Name of the plan whose gates are used; `None` for its own.
    """

    units: tuple[str, ...]
    target: float
    measure: Measure
    models: tuple[str, ...]
    gates_of: str | None = None


PLANS = {
    # Without "conv", because convolution channels of the large models cannot be pruned.
    "paper-28": Plan(DEFAULT_UNITS, 0.72, PARAMETERS, tuple(MODELS)),
    # The target counts MACs: convolutions hold a third of the MACs but few parameters, so a parameter target keeps them all.
    "conv-28": Plan((*DEFAULT_UNITS, "conv"), 0.72, Measure("macs"), BASE_MODELS, gates_of="macs-20"),
    "macs-20": Plan((*DEFAULT_UNITS, "conv"), 0.8, Measure("macs"), BASE_MODELS),
}


@dataclass
class ShapeArguments(SpeechArguments):
    """Teacher, audio and output of the shapes.

    Raises:
        ValueError: If a plan is unknown.
    """

    teacher: str = field(
        kw_only=True, metadata={"help": "Folder or Hub id of the small dense checkpoint that gates are trained on."}
    )
    shapes_dir: str = field(default=str(SHAPES_FOLDER), metadata={"help": "Output folder of the shape files."})
    plans: list[str] = field(
        default_factory=lambda: list(PLANS), metadata={"help": f"Shapes to make, of {', '.join(PLANS)}."}
    )

    def __post_init__(self):
        if unknown := [name for name in self.plans if name not in PLANS]:
            raise ValueError(f"There is no plan {', '.join(map(repr, unknown))}; choose from {', '.join(PLANS)}.")


def learn_gates(
    plan: Plan, options: ShapeArguments, training: PruningTrainingArguments
) -> tuple[dict[str, torch.Tensor], PreTrainedConfig]:
    """Trains the gates of the small model.

    Args:
        plan: Settings of the shape.
        options: Teacher and audio.
        training: Training arguments.

    Returns:
        Values of log_alpha by gate name, and the small model's configuration.
    """
    feature_extractor = AutoFeatureExtractor.from_pretrained(options.teacher)
    speech = load_speech(options, feature_extractor.sampling_rate, training.seed)
    set_seed(training.seed)
    stages = TrainingStages(
        gated_by_weights(options.teacher, plan.units),
        load_prunable(options.teacher, dtype=torch.float32),
        training,
        ObjectiveArguments(crop_seconds=CROP_SECONDS),
        TrainingData(speech.train_clips, speech.held_out_clips, feature_extractor, CROP_SECONDS),
    )
    (learned,) = stages.learn_gates(stages.initial_student, [plan.target], plan.measure)
    model = learned.load(stages.initial_student).model
    return {name: gate.log_alpha.detach() for name, gate in model.named_gates()}, model.config


def make_shape(
    name: str, model_name: str, learned: dict[str, torch.Tensor], learned_on: PreTrainedConfig, source: str
) -> ShapeFile:
    """Makes the shape of a larger model from the gates of a small one.

    Args:
        name: Name of the plan.
        model_name: Name of the larger model, in `MODELS`.
        learned: Values of log_alpha by gate name, see `learn_gates`.
        learned_on: Configuration of the small model.
        source: Description of the training of the gates.
    """
    plan, fields = PLANS[name], MODELS[model_name]
    stock = AutoConfig.for_model(**fields)
    model_class = prunable_class(stock)
    # The random weights break ties between equal gates.
    set_seed(0)
    model = model_class(model_class.config_class.from_stock(stock))
    model.attach_gates(plan.units)
    scale_gates_(model, learned, learned_on)
    shape = decide_at_target(model, plan.target, plan.measure).cut().shape
    counts, dense = UnitCounts.of(shape), model.config.dense_counts
    left = [
        f"{count(model.config, counts):,} of {count(model.config, dense):,} {what}"
        for count, what in ((count_parameters, "parameters"), (count_macs, "multiply-accumulates of a 10 s clip"))
    ]
    source = (
        f"{source} Their log_alpha, sorted within each head, block and convolution and interpolated to the units of "
        f"{model_name} (random weights, heads and layers by position), select the units at {plan.measure.option} "
        f"{plan.target}: {' and '.join(left)} are kept."
    )
    return ShapeFile(
        f"{name}-{model_name}", model_name, fields, source, list(plan.units), plan.measure.name, plan.target, shape
    )


def main() -> None:
    parser = HfArgumentParser((ShapeArguments, PruningTrainingArguments))
    parser.set_defaults(**TRAINING, min_seconds=CROP_SECONDS)
    options, training = parser.parse_args_into_dataclasses()
    folder = Path(options.shapes_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for name in options.plans:
        plan, training_of_plan = PLANS[name], copy.copy(training)
        learning_plan = PLANS[plan.gates_of or name]
        training_of_plan.output_dir = str(Path(training.output_dir) / (plan.gates_of or name))
        learned, learned_on = learn_gates(learning_plan, options, training_of_plan)
        source = (
            f"Gates on {', '.join(learning_plan.units)} learned on {Path(options.teacher).name} "
            f"({learned_on.num_hidden_layers} layers, {learned_on.num_attention_heads} heads of "
            f"{learned_on.hidden_size // learned_on.num_attention_heads}, {learned_on.intermediate_size} intermediate "
            f"units) at {learning_plan.measure.option} {learning_plan.target}: {training.max_steps} steps of "
            f"{training.train_batch_size} x {CROP_SECONDS:g} s of {Path(options.dataset_name).name}."
        )
        for model_name in plan.models:
            path = make_shape(name, model_name, learned, learned_on, source).save(folder)
            logger.warning(f"Wrote {path}.")


if __name__ == "__main__":
    main()
