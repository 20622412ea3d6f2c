"""Linear probes of frozen encoders: words and speakers of Speech Commands, in cross-validation over all clips.

python -m experiments probe --models wavlm-mini pruned --speech_commands speech_commands_v0.02
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import torch
from transformers import AutoFeatureExtractor, HfArgumentParser

from experiments.cross_validation import SpeechCommandsProbes
from hf_prunable import load_prunable


@dataclass
class ProbeArguments:
    """Models to probe, and the data."""

    models: list[str] = field(metadata={"help": "Folders or Hub ids of checkpoints."})
    speech_commands: str = field(metadata={"help": "Folder of the extracted Speech Commands archive."})


def probe_accuracies(name: str, speech_commands: str) -> dict[str, float]:
    """Trains and tests the probes of a checkpoint.

    Args:
        name: Folder or Hub id of the checkpoint.
        speech_commands: Folder of the extracted Speech Commands archive.

    Returns:
        Accuracy over all clips, by task.
    """
    probes = SpeechCommandsProbes(speech_commands, AutoFeatureExtractor.from_pretrained(name))
    features = probes.features(load_prunable(name, dtype=torch.float32))
    return {
        task_name: float(task.is_correct(task.fit(features), features).mean())
        for task_name, task in probes.tasks.items()
    }


def main() -> None:
    (options,) = HfArgumentParser(ProbeArguments).parse_args_into_dataclasses()
    for name in options.models:
        print(json.dumps({"model": name, **probe_accuracies(name, options.speech_commands)}))


if __name__ == "__main__":
    main()
