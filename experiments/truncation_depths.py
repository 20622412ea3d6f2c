"""Accuracy after fine-tuning with every number of layers, and the numbers that the layer criteria choose beforehand.

    python -m experiments depths --model_name_or_path microsoft/wavlm-base --dataset_name speech_commands_v0.02 \
        --task word --num_train_epochs 2 --output_dir depths-word

Options and training are those of run_finetune_speech_commands.py. The same command resumes an interrupted run. The model with
all layers is saved to the folder `full`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from transformers import AutoFeatureExtractor, HfArgumentParser

from benchmarks.result_files import save_result
from experiments.layer_profiles import RAW_PROFILE_KEYS
from hf_prunable.finetuning.arguments import TruncationArguments
from hf_prunable.finetuning.classifier import FinetunedResult, FinetuningArguments, fine_tune, make_classifier
from hf_prunable.finetuning.task_profiles import profile_labels
from hf_prunable.modeling.loading import load_complete
from hf_prunable.reporting.measurement import describe_machine
from hf_prunable.reporting.pictures import DOTS_PER_INCH, GRID_COLOR, INK, LINE, NORMAL, SMALL
from hf_prunable.reporting.public_text import published_name
from hf_prunable.runtime.tables import markdown_table
from hf_prunable.truncation.convexity_config import CRITERIA
from hf_prunable.truncation.layer_choice import LayerChoice, choose_layer
from hf_prunable.truncation.layer_profile import LayerProfile


# Keys of a result that are too large for the repository.
RAW_KEYS = (*RAW_PROFILE_KEYS, "predictions", "history")
ACCURACY_COLOR, CONVEXITY_COLOR = "#d1603d", "#3a85bd"
ACCURACY = "Test accuracy after fine-tuning, 95 % confidence interval"
CONVEXITY = "Graph convexity before fine-tuning"


def fine_tune_depths(
    options: TruncationArguments, training: FinetuningArguments
) -> tuple[LayerProfile, list[FinetunedResult]]:
    """Scores the layers of the pretrained model, and fine-tunes it with 1 to n layers.

    Args:
        options: Model, data and task; options about the choice of a layer are ignored.
        training: Training arguments; `output_dir` holds a folder for each number of layers.

    Returns:
        The profile for the task's labels, and one result for each number of layers.
    """
    folder = Path(training.output_dir)
    feature_extractor = AutoFeatureExtractor.from_pretrained(options.model_name_or_path)
    task = options.load_task(feature_extractor.sampling_rate)
    base = load_complete(options.model_name_or_path)
    profile = profile_labels(base, task, feature_extractor, options, folder / "features")[task.name]
    results = []
    for num_layers in range(1, base.config.num_hidden_layers + 1):
        args = copy.copy(training)
        args.seed, args.output_dir = options.seeds[0], str(folder / f"layers_{num_layers}")
        model = make_classifier(options, task.class_names, num_layers, args.seed)
        results.append(fine_tune(model, task, feature_extractor, args))
    model.save_pretrained(folder / "full")
    feature_extractor.save_pretrained(folder / "full")
    return profile, results


def format_depths(results: Sequence[FinetunedResult], choices: Mapping[str, LayerChoice]) -> str:
    """Formats accuracy and training time for each number of layers, with the criteria that choose it, as Markdown.

    Args:
        results: Results in ascending order of the number of layers.
        choices: Chosen number of layers, by criterion.
    """
    rows = []
    best = max(results, key=lambda result: result.metrics["accuracy"])
    for result in results:
        names = [name for name, choice in choices.items() if choice.num_layers == result.num_layers]
        names += ["(best)"] if result is best else []
        values = (result.metrics[f"accuracy{end}"] for end in ("", "_lower", "_upper"))
        accuracy = "{:.4f} ({:.4f} to {:.4f})".format(*values)
        seconds = f"{result.train_seconds_per_epoch:.1f}"
        rows.append([str(result.num_layers), accuracy, seconds, ", ".join(names)])
    header = ("Layers kept", "Test accuracy (95 % confidence interval)", "Time per epoch (s)", "Chosen by")
    return markdown_table(header, rows, "rlrl") + "\n"


def draw_depths(
    profile: LayerProfile, results: Sequence[FinetunedResult], choices: Mapping[str, LayerChoice], path: Path
) -> None:
    """Draws test accuracy after fine-tuning and convexity before fine-tuning over the number of layers kept.

    Vertical lines mark the numbers of layers that the criteria choose.

    Args:
        profile: Profile of the pretrained model, for the task's labels only.
        results: Results in ascending order of the number of layers.
        choices: Chosen number of layers, by criterion.
        path: Output file; its extension selects the image format.
    """
    figure = Figure(figsize=(8, 4.8), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    depths = [result.num_layers for result in results]
    (labels,) = profile.labels.values()
    axes.plot(range(profile.num_layers + 1), labels.convexity.values, color=CONVEXITY_COLOR, label=CONVEXITY, **LINE)
    accuracies = [result.metrics["accuracy"] for result in results]
    margins = [
        [abs(result.metrics[end] - result.metrics["accuracy"]) for result in results]
        for end in ("accuracy_lower", "accuracy_upper")
    ]
    axes.errorbar(depths, accuracies, margins, color=ACCURACY_COLOR, label=ACCURACY, capsize=3, **LINE)
    for num_layers in sorted({choice.num_layers for choice in choices.values()}):
        names = "\n".join(
            name.replace("_", " ") for name, choice in choices.items() if choice.num_layers == num_layers
        )
        axes.axvline(num_layers, color=INK, linewidth=0.8, linestyle=":")
        # Above the axes, where no curve is.
        place = {"xycoords": ("data", "axes fraction"), "xytext": (0, 4), "textcoords": "offset points"}
        axes.annotate(names, (num_layers, 1), rotation=30, ha="left", va="bottom", color=INK, fontsize=NORMAL, **place)
    axes.set_xlabel("Number of layers kept", fontsize=NORMAL)
    axes.set_ylabel("Accuracy, convexity", fontsize=NORMAL)
    axes.tick_params(labelsize=SMALL + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color=GRID_COLOR, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=NORMAL)
    figure.savefig(path)


def main() -> None:
    options, training = HfArgumentParser((TruncationArguments, FinetuningArguments)).parse_args_into_dataclasses()
    profile, results = fine_tune_depths(options, training)
    choices = {name: choose_layer(profile, name, options.task) for name in CRITERIA}
    folder = Path(training.output_dir)
    values = {
        "options": asdict(options)
        | {name: published_name(getattr(options, name)) for name in ("model_name_or_path", "dataset_name")},
        "training": training.settings(),
        "machine": describe_machine("cpu"),
        "profile": profile.to_dict(),
        "choices": {name: asdict(choice) for name, choice in choices.items()},
        "results": [vars(result) for result in results],
    }
    save_result(folder, "depths", values, format_depths(results, choices), RAW_KEYS)
    draw_depths(profile, results, choices, folder / "depths.png")


if __name__ == "__main__":
    main()
