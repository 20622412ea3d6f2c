"""Layer profiles of one model for words and for speakers, and the layers chosen with several graphs and criteria.

    python -m experiments layer_profiles --model wavlm-base --words speech_commands_v0.02 --speakers speaker_segments \
        --min_clips_per_speaker 5 --output_dir layer-profiles

It also compares features of batches with features of single clips, and tests the 95 % band of permuted labels with one more
permutation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import AutoFeatureExtractor, HfArgumentParser, PreTrainedModel

from benchmarks.result_files import save_result
from experiments.scored_clips import ScoredClipsArguments
from hf_prunable.modeling.loading import load_complete
from hf_prunable.reporting.layer_pictures import convexity_curves, draw_layer_profiles
from hf_prunable.reporting.measurement import describe_machine
from hf_prunable.runtime.tables import markdown_table
from hf_prunable.truncation.clip_batches import BATCH_SIZE
from hf_prunable.truncation.convexity_config import CRITERIA, ConvexityConfig
from hf_prunable.truncation.layer_choice import choose_layer
from hf_prunable.truncation.layer_profile import LayerProfile, profile_features
from hf_prunable.truncation.pooled_features import pooled_features


NUM_PERMUTATIONS = ConvexityConfig.num_permutations
# Keys of a profile that are too large for the repository: values of single classes and of permuted labels.
RAW_PROFILE_KEYS = ("per_class", "permuted_convexity")


@dataclass(kw_only=True)
class ProfileArguments(ScoredClipsArguments):
    """Model, and clips of words and of speakers."""

    model: str = field(metadata={"help": "Folder or Hub id of the checkpoint."})
    n_neighbors: list[int] = field(
        default_factory=lambda: [10, 5, 20],
        metadata={"help": "Numbers of neighbors in the convexity graph; the first is scored with all criteria."},
    )


@dataclass(frozen=True)
class TaskProfiles:
    """Profiles of one task.

    Attributes:
        profiles: Profiles by number of neighbors.
        num_clips: Number of scored clips.
        num_classes: Number of classes of the scored clips.
        largest_difference: Largest absolute difference between features of batches and of single clips.
        layers_in_band: Number of hidden states at which one more permutation lies in the 95 % band.
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
        model: Model with or without a head.
        feature_extractor: Feature extractor of the model's checkpoint.
        clips: Clips with a column named after the task.
        task: "word" or "speaker".
        n_neighbors: Numbers of neighbors in the convexity graph; the first is scored with all criteria and permuted
            labels.
    """
    batches, single_clips = (
        pooled_features(model, feature_extractor, clips, batch_size=size) for size in (BATCH_SIZE, 1)
    )
    labels = np.array(clips[task][:])[batches.clips].tolist()
    profiles = {
        neighbors: profile_features(
            batches.layers,
            {task: labels},
            criteria=CRITERIA if place == 0 else ["convexity"],
            n_neighbors=neighbors,
            num_permutations=0 if place else NUM_PERMUTATIONS + 1,
        )
        for place, neighbors in enumerate(n_neighbors)
    }
    first = profiles[n_neighbors[0]].labels[task]
    *first.permuted_convexity, further = first.permuted_convexity
    low, high = first.permuted_band()
    inside = sum(below <= value <= above for below, value, above in zip(low, further, high, strict=True))
    largest_difference = float(np.abs(batches.layers - single_clips.layers).max())
    return TaskProfiles(profiles, len(labels), len(set(labels)), largest_difference, inside)


def format_profiles(results: dict[str, TaskProfiles]) -> str:
    """Formats the layers chosen by each criterion as Markdown.

    Args:
        results: Result of `profile_task`, by task.
    """
    rows = []
    for task, result in results.items():
        for neighbors, profile in result.profiles.items():
            names = CRITERIA if neighbors == next(iter(result.profiles)) else ["convexity"]
            for name in names:
                choice = choose_layer(profile, name, task)
                title = f"{name}, {neighbors} neighbors" if name == "convexity" else name
                best = "" if choice.best_layer is None else str(choice.best_layer)
                clips, classes = f"{result.num_clips:,}", str(result.num_classes)
                rows.append([task, clips, classes, title, best, str(choice.num_layers)])
    header = ("Task", "Clips", "Classes", "Criterion", "Best layer", "Layers kept")
    lines = [markdown_table(header, rows, "lrrlrr"), ""]
    for task, result in results.items():
        num_layers = next(iter(result.profiles.values())).num_layers
        lines.append(
            f"- {task}: features of batches and of single clips differ by at most {result.largest_difference:.1e}. One more "
            f"permutation of the labels lies in the 95 % band of {NUM_PERMUTATIONS} permutations at "
            f"{result.layers_in_band} of {num_layers + 1} hidden states."
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
            task: {neighbors: profile.to_dict() for neighbors, profile in result.profiles.items()}
            for task, result in results.items()
        },
    }
    save_result(folder, "layer_profiles", values, format_profiles(results), RAW_PROFILE_KEYS)
    curves = []
    for color, (task, result) in enumerate(results.items()):
        profile = result.profiles[options.n_neighbors[0]]
        (curve,) = convexity_curves(profile, [choose_layer(profile, "convexity", task)])
        curves.append(replace(curve, color=color))
    draw_layer_profiles(curves, folder / "layer_profiles.png")


if __name__ == "__main__":
    main()
