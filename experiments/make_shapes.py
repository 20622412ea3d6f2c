"""Makes the shapes that benchmarks measure, with gates that learned on a small model.

    python -m experiments.make_shapes --teacher wavlm-mini --dataset_name LibriSpeech/train-clean-100 \
        --output_dir outputs/gates

Gates learn in two runs, which take some minutes each and are kept in `--output_dir`. What they learned is brought to
the size of the models in `MODELS`, of random weights, and the library decides at the target which units stay. Further
options are the Trainer's; the defaults are those of experiments/results/wavlm-mini.
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
from experiments.scaled_gates import scale_gates_
from experiments.students import from_norms
from hf_prunable.data.arguments import SpeechArguments, load_speech
from hf_prunable.modeling.auto import prunable_class
from hf_prunable.modeling.loading import load_prunable
from hf_prunable.modeling.size import PARAMETERS, Measure, UnitCounts, count_macs, count_parameters
from hf_prunable.modeling.units import DEFAULT_UNITS
from hf_prunable.pruning.decisions import decide_at_target
from hf_prunable.pruning.objective import ObjectiveArguments
from hf_prunable.pruning.run import PruningRun
from hf_prunable.pruning.training_arguments import PruningTrainingArguments


logger = logging.get_logger("hf_prunable.benchmarks")

# Fields of the stock configuration that differ from its defaults, which are those of the base models.
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
    """A kind of shape.

    Attributes:
        units: With gates.
        target: The part of the dense model to remove.
        measure: What that counts.
        models: That the shape is made of.
        gates_of: The plan whose gates decide, where it is another one.
    """

    units: tuple[str, ...]
    target: float
    measure: Measure
    models: tuple[str, ...]
    gates_of: str | None = None


PLANS = {
    # Convolution channels of models with norms over them cannot go.
    "paper-28": Plan(DEFAULT_UNITS, 0.72, PARAMETERS, tuple(MODELS)),
    # 28 % of the computation: convolutions have a third of it but few parameters, and at 28 % of those all channels stay.
    "conv-28": Plan((*DEFAULT_UNITS, "conv"), 0.72, Measure("macs"), BASE_MODELS, gates_of="macs-20"),
    "macs-20": Plan((*DEFAULT_UNITS, "conv"), 0.8, Measure("macs"), BASE_MODELS),
}


@dataclass
class ShapeArguments(SpeechArguments):
    """What gates learn from, and where the shapes go."""

    teacher: str = field(kw_only=True, metadata={"help": "Small dense checkpoint that gates learn on."})
    shapes_dir: str = field(default=str(SHAPES_FOLDER), metadata={"help": "Folder for the shapes."})
    plans: list[str] = field(
        default_factory=lambda: list(PLANS), metadata={"help": f"Which to make, of {', '.join(PLANS)}."}
    )

    def __post_init__(self):
        if unknown := [name for name in self.plans if name not in PLANS]:
            raise ValueError(f"There is no plan {', '.join(map(repr, unknown))}; choose from {', '.join(PLANS)}.")


def learn_gates(
    plan: Plan, options: ShapeArguments, training: PruningTrainingArguments
) -> tuple[dict[str, torch.Tensor], PreTrainedConfig]:
    """Lets the gates of the small model learn.

    Returns:
        Values of log_alpha by the name of the gate, and the small model's configuration.
    """
    feature_extractor = AutoFeatureExtractor.from_pretrained(options.teacher)
    speech = load_speech(options, feature_extractor.sampling_rate, training.seed)
    set_seed(training.seed)
    run = PruningRun(
        from_norms(options.teacher, plan.target, units=plan.units),
        load_prunable(options.teacher, dtype=torch.float32),
        training,
        ObjectiveArguments(crop_seconds=CROP_SECONDS),
        train_clips=speech.train_clips,
        held_out_clips=speech.held_out_clips,
        feature_extractor=feature_extractor,
        measure=plan.measure,
    )
    run.learn_gates([plan.target])
    return {name: gate.log_alpha.detach() for name, gate in run.student.named_gates()}, run.student.config


def make_shape(
    name: str, model_name: str, learned: dict[str, torch.Tensor], learned_on: PreTrainedConfig, source: str
) -> ShapeFile:
    """The shape of a larger model that the gates of a small one decide.

    Args:
        name: Of the plan.
        model_name: Of the larger model, in `MODELS`.
        learned: As `learn_gates` gives them.
        learned_on: The small model's configuration.
        source: How the gates learned, in words.
    """
    plan, fields = PLANS[name], MODELS[model_name]
    stock = AutoConfig.for_model(**fields)
    model_class = prunable_class(stock)
    # Equal gates are told apart by the norms of the weights.
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
        f"{model_name} (random weights, heads and layers by position), decided at {plan.measure.option} {plan.target} "
        f"what stays: {' and '.join(left)}."
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
            logger.warning(f"{path} is made.")


if __name__ == "__main__":
    main()
