"""Linear probes of a frozen encoder: word classifiers on mean-pooled hidden states.

python -m experiments probe --models wavlm-mini pruned --speech_commands speech_commands_v0.02
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoFeatureExtractor, HfArgumentParser, PreTrainedModel

from experiments.hidden_states import pooled_hidden_states
from hf_prunable import load_prunable
from hf_prunable.data.audio import decode_audio
from hf_prunable.data.speech_commands import load_speech_commands
from hf_prunable.truncation.layer_criteria import linear_probe


SPLITS = ("train", "validation", "test")
# Words with at least 87 clips in the subset used here, in the order of the Speech Commands paper (arXiv 1804.03209).
FREQUENT_WORDS = "yes no up down left right on off stop go zero one five eight".split()
# Weights of the L2 penalty of the weighted-sum probe. The strongest is first and wins a tie on the validation split.
REGULARISATIONS = (0.1, 0.01, 0.001, 0.0001)
LBFGS_STEPS = 100


def weighted_sum_probe(features: dict[str, np.ndarray], labels: dict[str, Sequence[str]]) -> dict:
    """Trains and tests a linear classifier on a learned weighted sum of hidden states, as in SUPERB (arXiv 2105.01051).

    Hidden states are standardized; their weights are a softmax. L-BFGS minimizes cross-entropy plus an L2 penalty on all
    training clips, starting from zeros, so the result is deterministic. The penalty's weight is chosen on the validation
    split.

    Args:
        features: By split ("train", "validation", "test"), features of shape (clips, hidden states, hidden size).
        labels: By split, the class name of each clip. Classes are those of the training split.

    Returns:
        Test "accuracy", "validation_accuracy", weight of the "regularisation", "layer_weights" after the softmax, number
        of "classes", number of "test_clips".
    """
    classes = sorted(set(labels["train"]))
    mean, spread = features["train"].mean(0), features["train"].std(0)
    # Hidden states come first, so that their weighted sum is a vector-matrix product.
    inputs = {
        split: torch.from_numpy(((values - mean) / np.maximum(spread, 1e-6)).astype(np.float32))
        .transpose(0, 1)
        .contiguous()
        for split, values in features.items()
    }
    # A class missing in the training split gets -1, which never equals a prediction.
    targets = {
        split: torch.tensor([classes.index(label) if label in classes else -1 for label in names])
        for split, names in labels.items()
    }
    best: dict[str, Any] = {"validation_accuracy": -1.0}
    for regularisation in REGULARISATIONS:
        parameters = _fit(inputs["train"], targets["train"], len(classes), regularisation)
        accuracy = {
            split: float((_scores(inputs[split], *parameters).argmax(1) == targets[split]).float().mean())
            for split in ("validation", "test")
        }
        if accuracy["validation"] > best["validation_accuracy"]:
            best = {
                "accuracy": accuracy["test"],
                "validation_accuracy": accuracy["validation"],
                "regularisation": regularisation,
                "layer_weights": parameters[0].softmax(0).tolist(),
            }
    return {**best, "classes": len(classes), "test_clips": len(targets["test"])}


def _scores(
    inputs: torch.Tensor, layer_logits: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    weighted = layer_logits.softmax(0) @ inputs.flatten(1)
    return weighted.view(inputs.shape[1:]) @ weight.T + bias


def _fit(inputs: torch.Tensor, targets: torch.Tensor, num_classes: int, regularisation: float) -> list[torch.Tensor]:
    """Minimizes the loss from zeros; returns layer logits, weight and bias."""
    sizes = ((inputs.shape[0],), (num_classes, inputs.shape[2]), (num_classes,))
    parameters = [torch.zeros(size, requires_grad=True) for size in sizes]
    optimizer = torch.optim.LBFGS(parameters, max_iter=LBFGS_STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        # The penalty includes the layer logits; without it, the softmax collapses onto one hidden state.
        penalty = sum(parameter.square().sum() for parameter in parameters[:2])
        loss = cross_entropy(_scores(inputs, *parameters), targets) + regularisation / 2 * penalty
        loss.backward()
        return loss

    optimizer.step(closure)
    return [parameter.detach() for parameter in parameters]


def layer_probes(features: dict[str, np.ndarray], labels: dict[str, Sequence[str]]) -> dict:
    """Trains and tests logistic regressions on single hidden states.

    Args:
        features: By split ("train", "validation", "test"), features of shape (clips, hidden states, hidden size).
        labels: By split, the class name of each clip.

    Returns:
        Test accuracies "by_layer"; their mean, "mean_over_layers"; that of the "last_layer"; "best_validation_layer",
        the index of the hidden state with the best validation accuracy, and its test accuracy,
        "at_best_validation_layer".
    """
    accuracies: dict[str, list[float]] = {"validation": [], "test": []}
    for layer in range(features["train"].shape[1]):
        probe = linear_probe().fit(features["train"][:, layer], labels["train"])
        for split, values in accuracies.items():
            values.append(float(probe.score(features[split][:, layer], labels[split])))
    best = int(np.argmax(accuracies["validation"]))
    return {
        "by_layer": accuracies["test"],
        "mean_over_layers": float(np.mean(accuracies["test"])),
        "last_layer": accuracies["test"][-1],
        "best_validation_layer": best,
        "at_best_validation_layer": accuracies["test"][best],
    }


def word_accuracy(model: PreTrainedModel, feature_extractor: Any, speech_commands: str) -> dict:
    """Trains and tests word probes on the official splits of Speech Commands.

    Args:
        model: Base model.
        feature_extractor: Feature extractor of the model's checkpoint.
        speech_commands: Folder of the extracted Speech Commands archive.

    Returns:
        Results of `weighted_sum_probe` and `layer_probes`.
    """
    features, labels = {}, {}
    for split in SPLITS:
        clips = load_speech_commands(speech_commands, split, words=FREQUENT_WORDS)
        waveforms = [decode_audio(clip["audio"], feature_extractor.sampling_rate) for clip in clips]
        features[split] = pooled_hidden_states(model, feature_extractor, waveforms)
        labels[split] = clips["word"][:]
    return weighted_sum_probe(features, labels) | layer_probes(features, labels)


@dataclass
class ProbeArguments:
    """Models to probe, and the data."""

    models: list[str] = field(metadata={"help": "Folders or Hub ids of checkpoints."})
    speech_commands: str = field(metadata={"help": "Folder of the extracted Speech Commands archive."})


def main() -> None:
    (options,) = HfArgumentParser(ProbeArguments).parse_args_into_dataclasses()
    for name in options.models:
        model = load_prunable(name, dtype=torch.float32)
        result = word_accuracy(model, AutoFeatureExtractor.from_pretrained(name), options.speech_commands)
        print(json.dumps({"model": name, **result}))


if __name__ == "__main__":
    main()
