"""Keyword spotting end to end: accuracy against latency of a full, a truncated, a one-shot pruned model, and of both.

    python examples/keyword_spotting.py --model_name_or_path microsoft/wavlm-base-plus \
        --dataset_name speech_commands_v0.02.tar.gz --audio recordings/ --num_layers 8 --target_sparsity 0.72 \
        --output_dir keywords --num_train_epochs 5 --learning_rate 3e-4

The task has twelve classes: ten words, other words, and silence. Further options are those of `hf-prunable
finetune-speech-commands`. The output folder holds the fine-tuned models, `comparison.md` and `comparison.png`. Models that are
complete are not trained again; the same command continues an interrupted run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForAudioClassification, HfArgumentParser

from hf_prunable import load_prunable
from hf_prunable.reporting.measurement import Latency, describe_machine, measure_latency, measure_size
from hf_prunable.reporting.pictures import DOTS_PER_INCH, GRID_COLOR, INK, new_figure
from hf_prunable.runtime.tables import markdown_table


CLIP_SECONDS = 1.0
AUTO_CLASS = "AutoModelForAudioClassification"
TABLE, PICTURE = "comparison.md", "comparison.png"
COLORS = ("#555555", "#d1603d", "#3a85bd", "#4b7f52")


@dataclass
class KeywordArguments:
    """Model, audio, and how much is removed."""

    model_name_or_path: str = field(metadata={"help": "Folder or Hub id of the dense checkpoint."})
    dataset_name: str = field(
        metadata={"help": "Speech Commands: the archive, the extracted folder, or a parquet copy."}
    )
    audio: str = field(metadata={"help": "Speech without labels, for one-shot pruning: a folder or a Hub id."})
    output_dir: str = field(metadata={"help": "Folder of the models, the table and the picture."})
    num_layers: int = field(metadata={"help": "Number of layers that truncation keeps."})
    target_sparsity: float = field(
        default=0.72, metadata={"help": "Fraction of the encoder's parameters that one-shot pruning removes."}
    )
    calibration_clips: int = field(default=200, metadata={"help": "Number of crops that one-shot pruning reads."})
    num_threads: int = field(default=1, metadata={"help": "CPU threads of the latency measurement."})


@dataclass
class KeywordModel:
    """A fine-tuned model as it is compared.

    Attributes:
        num_parameters: Number of parameters of the encoder.
        macs: Multiply-accumulates for a clip of one second.
        accuracies: Test accuracy with each seed.
        interval: Ends of the 95 % interval of the first seed's accuracy over the test clips.
        latency: Latency as transformers loads it.
        prepared_latency: Latency after `prepare_for_inference_()`.
    """

    num_parameters: int
    macs: int
    accuracies: list[float]
    interval: tuple[float, float]
    latency: Latency
    prepared_latency: Latency

    @property
    def accuracy(self) -> float:
        """Mean test accuracy over the seeds."""
        return float(np.mean(self.accuracies))


def main() -> None:
    arguments, training_options = HfArgumentParser(KeywordArguments).parse_args_into_dataclasses(
        return_remaining_strings=True
    )
    folders = train_all(arguments, training_options)
    models = compare(folders, arguments.num_threads)
    report = f"{format_table(models)}\n\nMeasured on: {describe_machine('cpu', arguments.num_threads)}.\n"
    (Path(arguments.output_dir) / TABLE).write_text(report)
    draw(models, Path(arguments.output_dir) / PICTURE)
    print(report)


def train_all(arguments: KeywordArguments, training_options: list[str]) -> dict[str, Path]:
    """Prunes the model, and fine-tunes it in four forms.

    Args:
        arguments: Model, audio, and how much is removed.
        training_options: Further options of `hf-prunable finetune-speech-commands`.

    Returns:
        Folder of each fine-tuned model.
    """
    output_dir = Path(arguments.output_dir)
    pruned = output_dir / "one-shot"
    run_once(
        pruned,
        *("prune", "--method", "one_shot", "--target_sparsity", arguments.target_sparsity),
        *("--model_name_or_path", arguments.model_name_or_path, "--dataset_name", arguments.audio),
        *("--calibration_clips", arguments.calibration_clips),
    )
    removed = f"{100 * arguments.target_sparsity:g} % removed"
    layers = f"{arguments.num_layers} layers"
    forms = {
        "full": (arguments.model_name_or_path, "none"),
        f"truncated, {layers}": (arguments.model_name_or_path, arguments.num_layers),
        f"one-shot, {removed}": (pruned, "none"),
        f"both, {removed}, {layers}": (pruned, arguments.num_layers),
    }
    folders = {}
    for name, (source, num_layers) in forms.items():
        folders[name] = output_dir / f"{name.partition(',')[0]}-keywords"
        run_once(
            folders[name],
            *("finetune-speech-commands", "--task", "keyword", "--truncate", num_layers),
            *("--model_name_or_path", source, "--dataset_name", arguments.dataset_name),
            *training_options,
        )
    return folders


def run_once(folder: Path, *command: Any) -> None:
    """Runs a command of hf_prunable, unless its output folder is there, which happens only when it is complete."""
    if not folder.exists():
        words = [*map(str, command), "--output_dir", str(folder)]
        subprocess.run([sys.executable, "-m", "hf_prunable", *words], check=True)


def compare(folders: dict[str, Path], num_threads: int) -> dict[str, KeywordModel]:
    """Reads the accuracies, and measures all models in turn.

    Args:
        folders: Folder of each fine-tuned model.
        num_threads: Number of CPU threads.
    """
    loaded = {name: AutoModelForAudioClassification.from_pretrained(folder) for name, folder in folders.items()}
    prunable = {name: load_prunable(folder, AUTO_CLASS) for name, folder in folders.items()}
    sizes = {name: measure_size(model, CLIP_SECONDS) for name, model in prunable.items()}
    prepared = {f"{name}, prepared": model.prepare_for_inference_() for name, model in prunable.items()}
    latencies = measure_latency(loaded | prepared, seconds=CLIP_SECONDS, num_threads=num_threads, repetitions=50)
    models = {}
    for name, folder in folders.items():
        # The saved model is the last variant of the report.
        variant = list(json.loads((folder / "report.json").read_text())["results"]["variants"].values())[-1]
        metrics = [result["metrics"] for result in variant["results"]]
        models[name] = KeywordModel(
            num_parameters=sizes[name].num_parameters,
            macs=sizes[name].macs,
            accuracies=[values["accuracy"] for values in metrics],
            interval=(metrics[0]["accuracy_lower"], metrics[0]["accuracy_upper"]),
            latency=latencies[name],
            prepared_latency=latencies[f"{name}, prepared"],
        )
    return models


def format_table(models: dict[str, KeywordModel]) -> str:
    """Returns the comparison as a Markdown table."""
    rows = [
        [
            name,
            f"{model.num_parameters:,}",
            f"{model.macs / 1e6:.0f} M",
            f"{model.accuracy:.3f} ({min(model.accuracies):.3f} to {max(model.accuracies):.3f})",
            f"{model.interval[0]:.3f} to {model.interval[1]:.3f}",
            f"{1000 * model.latency.median_seconds:.1f} ms",
            f"{1000 * model.prepared_latency.median_seconds:.1f} ms ({model.prepared_latency.speedup:.2f}x)",
        ]
        for name, model in models.items()
    ]
    header = [
        "",
        "Encoder parameters",
        "Multiply-accumulates, 1 s",
        "Test accuracy, mean (range over seeds)",
        "95 % interval, first seed",
        "Latency, 1 s",
        "Prepared",
    ]
    return markdown_table(header, rows)


def draw(models: dict[str, KeywordModel], path: Path) -> None:
    """Draws accuracy over latency: hollow as transformers loads a model, filled as prepared for inference.

    Args:
        models: Models by name.
        path: Output file; its extension selects the image format.
    """
    figure = new_figure(7.5, 4.6)
    axes = figure.subplots()
    for (name, model), color in zip(models.items(), COLORS, strict=True):
        latencies = [1000 * latency.median_seconds for latency in (model.latency, model.prepared_latency)]
        axes.plot(latencies, [model.accuracy] * 2, color=color, linewidth=1, zorder=2)
        spread = [[model.accuracy - min(model.accuracies)], [max(model.accuracies) - model.accuracy]]
        axes.errorbar(latencies[1], model.accuracy, yerr=spread, color=color, capsize=3, linewidth=1, zorder=2)
        axes.scatter(latencies[0], model.accuracy, facecolor="white", edgecolor=color, s=45, zorder=3)
        axes.scatter(latencies[1], model.accuracy, color=color, s=45, zorder=3, label=name)
    axes.scatter([], [], facecolor="white", edgecolor=INK, s=45, label="as transformers loads it")
    axes.set_xlabel("Latency of a clip of 1 s (ms)")
    axes.set_ylabel("Test accuracy, 12 classes (bars: range over seeds)")
    axes.set_xlim(left=0)
    axes.grid(color=GRID_COLOR)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.savefig(path, dpi=DOTS_PER_INCH)


if __name__ == "__main__":
    main()
