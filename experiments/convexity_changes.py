"""What fine-tuning does to convexity: words and speakers, before and after fine-tuning on either, in one picture.

    python -m experiments.convexity_changes --models pretrained=wavlm-base "tuned on words=depths-word/full" \
        "tuned on speakers=depths-speaker/full" --words speech_commands_v0.02 --speakers speaker_segments \
        --output_dir convexity-changes

The claim is that of arXiv 2408.11858: what the task needs becomes more convex, and the rest less.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from transformers import AutoFeatureExtractor, HfArgumentParser, PreTrainedModel
from transformers.utils import logging

from experiments.scored_clips import ScoredClipsArguments
from hf_prunable.modeling.loading import load_complete
from hf_prunable.reporting.layer_pictures import draw_profiles
from hf_prunable.runtime.files import write_text_atomically
from hf_prunable.truncation.layer_profile import LayerProfile, layer_convexity


logger = logging.get_logger("hf_prunable.benchmarks")


@dataclass(kw_only=True)
class ChangesArguments(ScoredClipsArguments):
    """Models of one depth, and clips of words and of speakers."""

    models: list[str] = field(metadata={"help": "NAME=FOLDER, the pretrained one first."})
    words_split: str = field(default="test", metadata={"help": "Whose words are scored."})
    n_neighbors: int = field(default=10, metadata={"help": "Of the graph."})


def profile_models(options: ChangesArguments) -> dict[str, dict[str, LayerProfile]]:
    """Profiles by model and label.

    Raises:
        ValueError: If there are too few clips of two classes.
    """
    folders = dict(pair.split("=", 1) for pair in options.models)
    first = AutoFeatureExtractor.from_pretrained(next(iter(folders.values())))
    clips = options.load(first.sampling_rate)
    return {name: _profile(load_complete(folder), clips, first, options) for name, folder in folders.items()}


def _profile(model: PreTrainedModel, clips: dict, feature_extractor, options: ChangesArguments) -> dict:
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
    """Convexity at the last layer and the mean over layers, with the change from the first model, as Markdown."""
    lines = ["| labels | model | last layer | mean over layers |", "| --- | --- | ---: | ---: |"]
    for task in ("word", "speaker"):
        before: tuple[float, float] | None = None
        for name, by_task in profiles.items():
            values = by_task[task].labels[task].convexity.values[1:]
            now = (values[-1], sum(values) / len(values))
            cells = [f"{value:.3f}" for value in now]
            if before is not None:
                cells = [f"{cell} ({value - old:+.3f})" for cell, value, old in zip(cells, now, before, strict=True)]
            lines.append(f"| {task} | {name} | {' | '.join(cells)} |")
            before = before or now
    return "\n".join(lines) + "\n"


def main() -> None:
    (options,) = HfArgumentParser(ChangesArguments).parse_args_into_dataclasses()
    profiles = profile_models(options)
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        name: {task: profile.to_dict() for task, profile in by_task.items()} for name, by_task in profiles.items()
    }
    write_text_atomically(folder / "profiles.json", json.dumps(values, indent=1) + "\n")
    table = format_changes(profiles)
    write_text_atomically(folder / "changes.md", table)
    draw_profiles(profiles, None, "", folder / "changes.png")
    logger.warning(table)


if __name__ == "__main__":
    main()
