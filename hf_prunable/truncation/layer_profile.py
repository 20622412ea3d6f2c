"""The profile of a model over its layers: graph convexity of each hidden state, and other criteria for comparison."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset
from scipy import stats
from transformers import PreTrainedModel
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.utils import logging

from .class_pairs import ClassPairs, Label, PointClasses
from .convexity import score_paths
from .convexity_config import ConvexityConfig
from .layer_criteria import block_influence, linear_cka, probe_accuracy
from .neighbor_graph import nearest_neighbor_graph, neighbourhood_hit
from .pooled_features import pooled_features


# Upper quantile of the two-sided 95 % interval.
BAND_QUANTILE = 0.975


@dataclass
class LayerScores:
    """A score of each hidden state, higher is better; index 0 is the input of the first layer.

    Attributes:
        values: Score of each hidden state 0 to n.
        standard_errors: Standard error of each score.
        per_class: Label to the class score of each hidden state, for scores that are means over classes.
    """

    values: list[float]
    standard_errors: list[float]
    per_class: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def from_class_means(cls, classes: PointClasses, class_means: Sequence[np.ndarray]) -> LayerScores:
        """Averages class scores; the standard error is their standard deviation (ddof 1) / sqrt(number of classes).

        Args:
            classes: Classes of the points.
            class_means: Class scores of each hidden state, each of shape (classes,).
        """
        return cls(
            values=[float(means.mean()) for means in class_means],
            standard_errors=[float(means.std(ddof=1) / np.sqrt(len(means))) for means in class_means],
            per_class={
                str(name): [float(means[code]) for means in class_means] for code, name in enumerate(classes.names)
            },
        )


@dataclass
class LabelProfile:
    """Scores of the layers for one set of labels; `None` for criteria that were not computed.

    Attributes:
        convexity: Graph convexity, the mean over classes.
        permuted_convexity: Graph convexity of permuted labels, of shape (permutations, layers + 1).
        probe: Cross-validated accuracy of a linear probe, with binomial standard errors.
        neighbourhood_hit: Share of a clip's nearest neighbours that are of its class, the mean over classes.
    """

    convexity: LayerScores | None = None
    permuted_convexity: list[list[float]] | None = None
    probe: LayerScores | None = None
    neighbourhood_hit: LayerScores | None = None

    def permuted_band(self) -> tuple[list[float], list[float]]:
        """Chance level of convexity: the interval that holds the score of a further permutation with probability 0.95.

        It is Student's prediction interval for one further observation. The range between quantiles of 20 permutations
        would hold it with probability 0.86 only.

        Returns:
            Lower and upper ends, one value for each hidden state.

        Raises:
            ValueError: If fewer than two permutations were scored.
        """
        if self.permuted_convexity is None or len(self.permuted_convexity) < 2:
            raise ValueError(
                f"A band needs two permutations and has {len(self.permuted_convexity or ())}. Score the layers again "
                "with `num_permutations` of 2 or more, such as 20."
            )
        count = len(self.permuted_convexity)
        permuted = np.array(self.permuted_convexity)
        half = stats.t.ppf(BAND_QUANTILE, count - 1) * permuted.std(axis=0, ddof=1) * np.sqrt(1 + 1 / count)
        middle = permuted.mean(axis=0)
        return (middle - half).tolist(), (middle + half).tolist()


@dataclass
class LayerProfile:
    """Scores of the hidden states 0 to n of a model.

    Hidden state 0 is the input of the first layer, hidden state l the output of layer l. Keeping l layers means layers
    1 to l.

    Attributes:
        num_layers: Number of layers of the model, n.
        num_clips: Number of clips scored.
        config: Settings of the scores.
        labels: Name of each set of labels to the scores for it.
        block_influence: Influence of each layer 1 to n, 1 - cos(h_(l-1), h_l), of length n.
        cka: Linear CKA of each hidden state 0 to n with the last one, of length n + 1.
    """

    num_layers: int
    num_clips: int
    config: ConvexityConfig
    labels: dict[str, LabelProfile]
    block_influence: list[float] | None = None
    cka: list[float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the settings that the scores depend on beside the scores."""
        values = dataclasses.asdict(self)
        settings = values.pop("config")
        # Not a setting of the scores, and unused where the features came from elsewhere.
        del settings["batch_size"]
        return settings | values


def layer_convexity(
    model: PreTrainedModel,
    dataset: Dataset,
    feature_extractor: SequenceFeatureExtractor,
    config: ConvexityConfig | None = None,
    *,
    labels: Sequence[str] = ("word",),
    cache_dir: str | os.PathLike | None = None,
    **overrides: Any,
) -> LayerProfile:
    """Scores every hidden state of a model, averaged over the frames of each clip, for one or more sets of labels.

    The audio is read and encoded once for all sets of labels. For models with a final norm, such as pre-norm ones
    (`do_stable_layer_norm`) and Whisper, the features of layer l are that norm of h_l, which the model outputs if it is
    truncated after this layer.

        layer_convexity(model, dataset, feature_extractor, labels=["word", "speaker"], n_neighbors=5)

    Args:
        model: WavLM, HuBERT, wav2vec 2.0 or related model, stock or prunable, or an encoder of another family of
            transformers, with or without a head.
        dataset: Clips, with a column `audio` and the columns of labels.
        feature_extractor: Feature extractor of the model's checkpoint.
        config: Settings of the scores; `None` for the defaults of `ConvexityConfig`.
        labels: Names of the columns that hold labels, strings or integers, each column a set of labels.
        cache_dir: Folder in which pooled features are cached (see `pooled_features`); `None` for no cache.
        **overrides: Fields of `ConvexityConfig`, in place of the values of `config`.

    Raises:
        TypeError: If a keyword argument is not a field of `ConvexityConfig`.
        ValueError: If a setting is not allowed, a column is missing, no clip can be read, or the features or labels
            are not as `graph_convexity` needs them.
    """
    config = ConvexityConfig.from_call(config, overrides)
    if isinstance(labels, str):
        raise ValueError(f"labels is the string {labels!r}; give a list of columns.")
    if unknown := [name for name in labels if name not in dataset.column_names]:
        raise ValueError(
            f"There is no column {', '.join(unknown)}; the columns are {', '.join(dataset.column_names)}."
        )
    features = pooled_features(model, feature_extractor, dataset, batch_size=config.batch_size, cache_dir=cache_dir)
    labels_of_clips = {name: _read_labels(dataset, name, features.clips) for name in labels}
    return profile_features(features.layers, labels_of_clips, config)


def _read_labels(dataset: Dataset, column: str, clips: np.ndarray) -> list[Label]:
    """The labels of the clips in these rows of a data set; names instead of indices for a `ClassLabel` column."""
    feature = dataset.features[column]
    values = dataset.with_format(None)[column][:]
    labels = [values[clip] for clip in clips]
    return feature.int2str(labels) if isinstance(feature, ClassLabel) else labels


def profile_features(
    features: np.ndarray,
    labels: Mapping[str, Sequence[Label]],
    config: ConvexityConfig | None = None,
    **overrides: Any,
) -> LayerProfile:
    """Scores features of several layers, as `layer_convexity` does, for features that are already computed.

    Args:
        features: Feature vectors of each clip, of shape (layers + 1, clips, dimensions); index 0 is the input of the
            first layer.
        labels: Name of each set of labels to the label of each clip, all strings or all integers.
        config: Settings of the scores; `None` for the defaults of `ConvexityConfig`.
        **overrides: Fields of `ConvexityConfig`, in place of the values of `config`.

    Raises:
        TypeError: If a keyword argument is not a field of `ConvexityConfig`.
        ValueError: If a setting is not allowed, or the features or labels are not as `graph_convexity` needs them.
    """
    config = ConvexityConfig.from_call(config, overrides)
    if np.ndim(features) != 3 or len(features) < 2:
        raise ValueError(
            f"The features have the shape {np.shape(features)}; it must be (layers + 1, clips, dimensions), with at "
            "least one layer."
        )
    num_clips = features.shape[1]
    classes = {name: PointClasses.from_labels(values, num_clips) for name, values in labels.items()}
    profiles = _score_graphs(features, classes, config)
    if "probe" in config.criteria:
        for name, profile in profiles.items():
            profile.probe = _score_probes(features, classes[name], name, config.seed)
    return LayerProfile(
        num_layers=len(features) - 1,
        num_clips=num_clips,
        config=config,
        labels=profiles,
        block_influence=block_influence(features).tolist() if "block_influence" in config.criteria else None,
        cka=[linear_cka(layer, features[-1]) for layer in features] if "cka" in config.criteria else None,
    )


def _score_graphs(
    features: np.ndarray, classes: Mapping[str, PointClasses], config: ConvexityConfig
) -> dict[str, LabelProfile]:
    """Computes convexity, permuted convexity and neighbourhood hit, as far as they are among the criteria.

    The graph of a layer and its shortest paths are computed once for all sets of labels.
    """
    profiles = {name: LabelProfile() for name in classes}
    if not {"convexity", "neighbourhood_hit"} & set(config.criteria):
        return profiles
    num_clips = features.shape[1]
    permutations = [
        np.random.default_rng((config.seed, permutation_idx)).permutation(num_clips)
        for permutation_idx in range(config.num_permutations)
    ]
    pairs = [ClassPairs(classes[name], config) for name in profiles]
    # Class scores of each layer, and those of permuted labels.
    convexity: dict[str, list[np.ndarray]] = {name: [] for name in profiles}
    permuted: dict[str, list[np.ndarray]] = {name: [] for name in profiles}
    hits: dict[str, list[np.ndarray]] = {name: [] for name in profiles}
    for layer in logging.tqdm(features, desc="Graph of each layer", unit="layer"):
        graph = nearest_neighbor_graph(layer, config.n_neighbors)
        if "convexity" in config.criteria:
            for name, scores in zip(profiles, score_paths(graph, pairs, permutations), strict=True):
                convexity[name].append(scores.class_means)
                permuted[name].append(scores.permuted_class_means)
        if "neighbourhood_hit" in config.criteria:
            for name in profiles:
                hits[name].append(classes[name].means(neighbourhood_hit(graph, classes[name].codes)))
    for name, profile in profiles.items():
        if "convexity" in config.criteria:
            profile.convexity = LayerScores.from_class_means(classes[name], convexity[name])
            profile.permuted_convexity = [
                [float(class_means[permutation_idx].mean()) for class_means in permuted[name]]
                for permutation_idx in range(config.num_permutations)
            ]
        if "neighbourhood_hit" in config.criteria:
            profile.neighbourhood_hit = LayerScores.from_class_means(classes[name], hits[name])
    return profiles


def _score_probes(features: np.ndarray, classes: PointClasses, name: str, seed: int) -> LayerScores:
    """Accuracies of a linear probe of each layer, with binomial standard errors."""
    probes = [
        probe_accuracy(layer, classes, seed)
        for layer in logging.tqdm(features, desc=f"Probes of {name}", unit="layer")
    ]
    values, errors = zip(*probes, strict=True)
    return LayerScores(list(values), list(errors))
