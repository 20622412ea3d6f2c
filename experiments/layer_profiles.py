"""The profile of one model for words and for speakers, and how far the chosen layer depends on the graph.

    python -m experiments.layer_profiles --model wavlm-base --words speech_commands_v0.02 --speakers speaker_segments \
        --min_clips_per_speaker 5 --output_dir layer-profiles

It also pools the clips one at a time and holds them against the batches, and draws one permutation of the labels more than
the band is made of, which should lie in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import AutoFeatureExtractor, HfArgumentParser, PreTrainedModel
from transformers.utils import logging

from benchmarks.result_files import save_result
from experiments.scored_clips import ScoredClipsArguments
from hf_prunable.modeling.loading import load_complete
from hf_prunable.reporting.layer_pictures import convexity_curves, draw_layer_profiles
from hf_prunable.reporting.measurement import describe_machine
from hf_prunable.truncation.layer_choice import choose_layer
from hf_prunable.truncation.layer_profile import CRITERIA, LayerProfile, profile_features
from hf_prunable.truncation.pooled_features import BATCH_SIZE, pooled_features


logger = logging.get_logger("hf_prunable.benchmarks")

NUM_PERMUTATIONS = 20


@dataclass(kw_only=True)
class ProfileArguments(ScoredClipsArguments):
    """A model, and clips of words and of speakers."""

    model: str = field(metadata={"help": "Folder or Hub id of the checkpoint."})
    n_neighbors: list[int] = field(default_factory=lambda: [10, 5, 20], metadata={"help": "Of the graphs."})


@dataclass(frozen=True)
class TaskProfiles:
    """What was found for words or for speakers.

    Attributes:
        profiles: By number of neighbours.
        num_clips: That were scored.
        num_classes: Of them.
        largest_difference: Between the features of batches and those of clips alone.
        layers_in_band: Of the layers 0 to n, those at which a further permutation lies in the band.
    """

    profiles: dict[int, LayerProfile]
    num_clips: int
    num_classes: int
    largest_difference: float
    layers_in_band: int


def profile_task(
    model: PreTrainedModel, feature_extractor: Any, clips: Dataset, task: str, n_neighbors: Sequence[int]
) -> TaskProfiles:
    """Scores the layers for one task.

    Args:
        model: With a head or without.
        feature_extractor: Of its checkpoint.
        clips: With the column `task`.
        task: "word" or "speaker".
        n_neighbors: Of the graphs; the first one's has all criteria and the band.
    """
    batches, alone = (pooled_features(model, feature_extractor, clips, batch_size=size) for size in (BATCH_SIZE, 1))
    labels = np.array(clips[task][:])[batches.clips].tolist()
    profiles = {
        number: profile_features(
            batches.layers,
            {task: labels},
            criteria=CRITERIA if place == 0 else ["convexity"],
            n_neighbors=number,
            num_permutations=0 if place else NUM_PERMUTATIONS + 1,
        )
        for place, number in enumerate(n_neighbors)
    }
    first = profiles[n_neighbors[0]].labels[task]
    *first.permuted_convexity, further = first.permuted_convexity
    low, high = first.permuted_band()
    inside = sum(below <= value <= above for below, value, above in zip(low, further, high, strict=True))
    largest_difference = float(np.abs(batches.layers - alone.layers).max())
    return TaskProfiles(profiles, len(labels), len(set(labels)), largest_difference, inside)


def format_profiles(results: dict[str, TaskProfiles]) -> str:
    """What is chosen by which criterion, as Markdown."""
    lines = [
        "| labels | clips | classes | criterion | best layer | layers kept |",
        "| --- |" + " ---: |" * 2 + " --- | ---: | ---: |",
    ]
    for task, result in results.items():
        for number, profile in result.profiles.items():
            names = CRITERIA if number == next(iter(result.profiles)) else ["convexity"]
            for name in names:
                choice = choose_layer(profile, name, task)
                title = f"{name}, {number} neighbours" if name == "convexity" else name
                best = "" if choice.best_layer is None else choice.best_layer
                lines.append(
                    f"| {task} | {result.num_clips:,} | {result.num_classes} | {title} | {best} | {choice.num_layers} |"
                )
    lines.append("")
    for task, result in results.items():
        num_layers = next(iter(result.profiles.values())).num_layers
        lines.append(
            f"- {task}: features of batches and of clips alone differ by {result.largest_difference:.1e} at most; a further "
            f"permutation of the labels lies in the 95 % band of {NUM_PERMUTATIONS} at {result.layers_in_band} of "
            f"{num_layers + 1} hidden states."
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    (options,) = HfArgumentParser(ProfileArguments).parse_args_into_dataclasses()
    model = load_complete(options.model)
    feature_extractor = AutoFeatureExtractor.from_pretrained(options.model)
    results = {
        task: profile_task(model, feature_extractor, clips, task, options.n_neighbors)
        for task, clips in options.load(feature_extractor.sampling_rate).items()
    }
    folder = Path(options.output_dir)
    values = {
        "machine": describe_machine("cpu"),
        "profiles": {
            task: {number: profile.to_dict() for number, profile in result.profiles.items()}
            for task, result in results.items()
        },
    }
    save_result(folder, "layer_profiles", values, format_profiles(results))
    curves = []
    for color, (task, result) in enumerate(results.items()):
        profile = result.profiles[options.n_neighbors[0]]
        (curve,) = convexity_curves(profile, [choose_layer(profile, "convexity", task)])
        curves.append(replace(curve, color=color))
    draw_layer_profiles(curves, folder / "layer_profiles.png")


if __name__ == "__main__":
    main()
