"""How much a frozen encoder knows: linear classifiers on its mean-pooled hidden states.

python -m experiments.probe --models examples/wavlm-mini pruned --speech_commands speech_commands_v0.02
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
# The words with at least 87 clips in the small copy that this project measures on.
FREQUENT_WORDS = (
    "yes no up down left right on off stop go zero one five eight".split()  # in the order of the data set's paper
)
# For the weighted sum: factors of half the squared norm of its weights, beside the mean cross-entropy; strongest first,
# which a tie on the validation split goes to.
REGULARISATIONS = (0.1, 0.01, 0.001, 0.0001)
LBFGS_STEPS = 100


def weighted_sum_probe(features: dict[str, np.ndarray], labels: dict[str, Sequence[str]]) -> dict:
    """Accuracy of a linear classifier of a weighted sum of hidden states, the weights learned with it.

    The probe of SUPERB (arXiv 2105.01051): one softmax weight a hidden state. Each hidden state is standardised first.
    Cross-entropy is minimised by L-BFGS on all training clips from weights of 0, so nothing in it is random; the
    regularisation is the one that is best on the validation split.

    Args:
        features: By split ("train", "validation", "test"), of shape (clips, hidden states, hidden size).
        labels: By split; classes are those of the training split.

    Returns:
        "accuracy" on the test split, "validation_accuracy", "regularisation", "layer_weights", "classes", "test_clips".
    """
    classes = sorted(set(labels["train"]))
    mean, spread = features["train"].mean(0), features["train"].std(0)
    # Hidden states first, so that their weighted sum is one product of a vector and a matrix.
    inputs = {
        split: torch.from_numpy(((values - mean) / np.maximum(spread, 1e-6)).astype(np.float32))
        .transpose(0, 1)
        .contiguous()
        for split, values in features.items()
    }
    # A class that the training split does not have gets -1, which no prediction equals.
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
    """Layer logits, weight and bias of the least loss, searched from 0."""
    sizes = ((inputs.shape[0],), (num_classes, inputs.shape[2]), (num_classes,))
    parameters = [torch.zeros(size, requires_grad=True) for size in sizes]
    optimizer = torch.optim.LBFGS(parameters, max_iter=LBFGS_STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        # The layer weights too: without it, the first hidden state to lead would take all.
        penalty = sum(parameter.square().sum() for parameter in parameters[:2])
        loss = cross_entropy(_scores(inputs, *parameters), targets) + regularisation / 2 * penalty
        loss.backward()
        return loss

    optimizer.step(closure)
    return [parameter.detach() for parameter in parameters]


def layer_probes(features: dict[str, np.ndarray], labels: dict[str, Sequence[str]]) -> dict:
    """Accuracy of logistic regression on each hidden state alone.

    Args:
        features: By split, of shape (clips, hidden states, hidden size).
        labels: By split.

    Returns:
        Test accuracies "by_layer", their mean "mean_over_layers", the "last_layer", and the one of the layer that is
        best on the validation split.
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
    """Accuracy of linear classifiers of the frequent words, on the data's own lists.

    Returns:
        What `weighted_sum_probe` and `layer_probes` return.
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
