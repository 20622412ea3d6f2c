"""Changes of convexity by fine-tuning: words and speakers, before and after fine-tuning on either task.

    python -m experiments convexity_changes --models pretrained=wavlm-base "tuned on words=depths-word/full" \
        "tuned on speakers=depths-speaker/full" --words speech_commands_v0.02 --speakers speaker_segments \
        --output_dir convexity-changes

According to arXiv 2408.11858, fine-tuning makes the classes of its task more convex, and other classes less.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoFeatureExtractor, HfArgumentParser, PreTrainedModel

from benchmarks.result_files import save_result
from experiments.layer_profiles import RAW_PROFILE_KEYS
from experiments.scored_clips import ScoredClipsArguments
from hf_prunable.modeling.loading import load_complete
from hf_prunable.reporting.layer_pictures import draw_profiles
from hf_prunable.runtime.tables import markdown_table
from hf_prunable.truncation.convexity_config import ConvexityConfig
from hf_prunable.truncation.layer_profile import LayerProfile, layer_convexity


@dataclass(kw_only=True)
class ChangesArguments(ScoredClipsArguments):
    """Models of equal depth, and clips of words and of speakers."""

    models: list[str] = field(metadata={"help": "Models as NAME=FOLDER, the pretrained model first."})
    words_split: str = field(default="test", metadata={"help": "Split of the word task: train, validation or test."})
    n_neighbors: int = field(
        default=ConvexityConfig.n_neighbors, metadata={"help": "Number of neighbors in the convexity graph."}
    )


def profile_models(options: ChangesArguments) -> dict[str, dict[str, LayerProfile]]:
    """Computes the convexity of all layers of all models.

    Args:
        options: Options of the experiment.

    Returns:
        Profiles by model and task ("word", "speaker").

    Raises:
        ValueError: If a task has too few clips.
    """
    folders = dict(pair.split("=", 1) for pair in options.models)
    first = AutoFeatureExtractor.from_pretrained(next(iter(folders.values())))
    clips = options.load(first.sampling_rate)
    return {name: _profile(load_complete(folder), clips, first, options) for name, folder in folders.items()}


def _profile(
    model: PreTrainedModel, clips: dict[str, Dataset], feature_extractor: Any, options: ChangesArguments
) -> dict[str, LayerProfile]:
    return {
        task: layer_convexity(
            model,
            drawn,
            feature_extractor,
            labels=[task],
            criteria=["convexity"],
            n_neighbors=options.n_neighbors,
            num_permutations=0,
        )
        for task, drawn in clips.items()
    }


def format_changes(profiles: dict[str, dict[str, LayerProfile]]) -> str:
    """Formats convexity at the last layer and its mean over layers, with the change from the first model, as Markdown.

    Args:
        profiles: Profiles by model and task, the pretrained model first.
    """
    rows = []
    for task in ("word", "speaker"):
        before: tuple[float, float] | None = None
        for name, by_task in profiles.items():
            values = by_task[task].labels[task].convexity.values[1:]
            now = (values[-1], sum(values) / len(values))
            cells = [f"{value:.3f}" for value in now]
            if before is not None:
                cells = [f"{cell} ({value - old:+.3f})" for cell, value, old in zip(cells, now, before, strict=True)]
            rows.append([task, name, *cells])
            before = before or now
    header = ("Task", "Model", "Convexity, last layer", "Convexity, mean over layers")
    return markdown_table(header, rows, "llrr") + "\n"


def main() -> None:
    (options,) = HfArgumentParser(ChangesArguments).parse_args_into_dataclasses()
    profiles = profile_models(options)
    folder = Path(options.output_dir)
    values = {
        name: {task: profile.to_dict() for task, profile in by_task.items()} for name, by_task in profiles.items()
    }
    save_result(folder, "changes", values, format_changes(profiles), RAW_PROFILE_KEYS)
    draw_profiles(profiles, None, "", folder / "changes.png")


if __name__ == "__main__":
    main()
