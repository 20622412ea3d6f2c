"""How much a frozen encoder knows: logistic regression on its mean-pooled hidden states.

python -m benchmarks.probe --models examples/wavlm-mini pruned --speech_commands speech_commands_v0.02
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoFeatureExtractor, HfArgumentParser, PreTrainedModel
from transformers.utils import logging

from hf_prunable import load_prunable
from hf_prunable.audio import decode_audio
from hf_prunable.speech_commands import load_speech_commands


logger = logging.get_logger("hf_prunable.benchmarks")

# The words with at least 87 clips in the small copy that this project measures on.
FREQUENT_WORDS = (
    "yes no up down left right on off stop go zero one five eight".split()  # in the order of the data set's paper
)
REGULARISATION = 0.1


@torch.inference_mode()
def pooled_hidden_states(model: PreTrainedModel, feature_extractor, clips) -> np.ndarray:
    """The mean over time of every hidden state of every clip.

    Clips go one at a time: the base models' group norm runs over time, and padding would take part in it.

    Returns:
        Of shape (clips, layers + 1, hidden size).
    """
    model.eval()
    rows = []
    for clip in logging.tqdm(clips, desc="Hidden states"):
        waveform = decode_audio(clip["audio"], feature_extractor.sampling_rate)
        inputs = feature_extractor(waveform, sampling_rate=feature_extractor.sampling_rate, return_tensors="pt")
        states = model(inputs["input_values"].to(model.device), output_hidden_states=True).hidden_states
        rows.append(torch.stack([state.mean(1)[0] for state in states]).float().cpu().numpy())
    return np.stack(rows)


def word_accuracy(model: PreTrainedModel, feature_extractor, speech_commands: str) -> dict:
    """Accuracy of a linear classifier of the frequent words, layer by layer, on the data's own lists.

    Returns:
        Test accuracies by layer, their mean, and the one of the layer that is best on the validation list.
    """
    features, labels = {}, {}
    for split in ("train", "validation", "test"):
        clips = load_speech_commands(speech_commands, split, words=FREQUENT_WORDS)
        features[split] = pooled_hidden_states(model, feature_extractor, clips)
        labels[split] = clips["word"][:]
    accuracies = {"validation": [], "test": []}
    for layer in range(features["train"].shape[1]):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=REGULARISATION, max_iter=2000))
        probe.fit(features["train"][:, layer], labels["train"])
        for split, values in accuracies.items():
            values.append(float(probe.score(features[split][:, layer], labels[split])))
    best = int(np.argmax(accuracies["validation"]))
    return {
        "test_clips": len(labels["test"]),
        "by_layer": accuracies["test"],
        "mean_over_layers": float(np.mean(accuracies["test"])),
        "last_layer": accuracies["test"][-1],
        "best_validation_layer": best,
        "at_best_validation_layer": accuracies["test"][best],
    }


@dataclass
class ProbeArguments:
    """Which models to probe, and on what."""

    models: list[str] = field(metadata={"help": "Folders or Hub ids of checkpoints."})
    speech_commands: str = field(metadata={"help": "Folder with the extracted Speech Commands archive."})


def main() -> None:
    (options,) = HfArgumentParser(ProbeArguments).parse_args_into_dataclasses()
    for name in options.models:
        model = load_prunable(name, dtype=torch.float32)
        result = word_accuracy(model, AutoFeatureExtractor.from_pretrained(name), options.speech_commands)
        print(json.dumps({"model": name, **result}))


if __name__ == "__main__":
    main()
