"""The profile of a model over its layers: how convex the classes of a task are in each, and what other criteria say."""

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
from transformers.utils import logging

from .class_pairs import ClassPairs, PointClasses
from .convexity import score_paths
from .layer_criteria import block_influence, linear_cka, probe_accuracy
from .neighbor_graph import nearest_neighbor_graph, neighbourhood_hit
from .pooled_features import BATCH_SIZE, pooled_features


CRITERIA = ("convexity", "probe", "neighbourhood_hit", "block_influence", "cka")
# Above which one of 40 permuted profiles lies, and as many below the other end.
BAND_QUANTILE = 0.975


@dataclass
class LayerScores:
    """One number for each layer, higher for a better one; place 0 is the input of the first layer.

    Attributes:
        values: Of the layers, 0 to n.
        standard_errors: Of these values.
        per_class: Label to the value of each layer, where the values are means over classes.
    """

    values: list[float] = field(default_factory=list)
    standard_errors: list[float] = field(default_factory=list)
    per_class: dict[str, list[float]] = field(default_factory=dict)

    def add_layer(self, classes: PointClasses, class_means: np.ndarray) -> None:
        """Appends the mean over classes, with the standard deviation over them by the square root of their number."""
        self.values.append(float(class_means.mean()))
        self.standard_errors.append(float(class_means.std(ddof=1) / np.sqrt(len(class_means))))
        for name, mean in zip(classes.names, class_means.tolist(), strict=True):
            self.per_class.setdefault(str(name), []).append(mean)


@dataclass
class LabelProfile:
    """What the layers know of one set of labels.

    Attributes:
        convexity: Graph convexity, the mean over classes.
        permuted_convexity: The same with permuted labels, of shape (permutations, layers + 1).
        probe: Cross-validated accuracy of a linear probe, with binomial standard errors.
        neighbourhood_hit: The share of a clip's neighbours that are of its class, the mean over classes.
    """

    convexity: LayerScores | None = None
    permuted_convexity: list[list[float]] | None = None
    probe: LayerScores | None = None
    neighbourhood_hit: LayerScores | None = None

    def permuted_band(self) -> tuple[list[float], list[float]]:
        """Where the profile of one more permutation lies at a layer, in 95 of 100 cases.

        It is Student's prediction interval. Quantiles of 20 permutations would hold the next one in 86 of 100 cases only.

        Raises:
            ValueError: If there are fewer than two permutations.
        """
        count = len(self.permuted_convexity or ())
        if count < 2:
            raise ValueError(
                f"A band needs two permutations and has {count}. Score with `num_permutations` of 20, say."
            )
        permuted = np.array(self.permuted_convexity)
        half = stats.t.ppf(BAND_QUANTILE, count - 1) * permuted.std(axis=0, ddof=1) * np.sqrt(1 + 1 / count)
        middle = permuted.mean(axis=0)
        return (middle - half).tolist(), (middle + half).tolist()


@dataclass
class LayerProfile:
    """Scores of the hidden states 0 to n of a model; keeping n layers is keeping blocks 1 to n.

    Attributes:
        num_layers: n.
        num_clips: Whose features were scored.
        n_neighbors: Of the graph.
        max_pairs: Of a class, that were drawn at most.
        seed: Of the draw.
        labels: What the layers know of each set of labels.
        block_influence: What each block changes, 1 - cos(h_l, h_l+1), for l from 0 to n - 1.
        cka: Linear CKA of the layers 0 to n to the last one.
    """

    num_layers: int
    num_clips: int
    n_neighbors: int
    max_pairs: int | None
    seed: int
    labels: dict[str, LabelProfile]
    block_influence: list[float] | None = None
    cka: list[float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """In plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LayerProfile:
        """Makes a profile of what `to_dict` gave."""
        labels = {
            name: LabelProfile(
                **{
                    key: LayerScores(**scores) if isinstance(scores, Mapping) else scores
                    for key, scores in profile.items()
                }
            )
            for name, profile in values["labels"].items()
        }
        return cls(**{**values, "labels": labels})


def layer_convexity(
    model: PreTrainedModel,
    dataset: Dataset,
    feature_extractor: Any,
    *,
    labels: Sequence[str] = ("word",),
    criteria: Sequence[str] = CRITERIA,
    n_neighbors: int = 10,
    max_pairs: int | None = 5000,
    seed: int = 42,
    num_permutations: int = 20,
    batch_size: int = BATCH_SIZE,
    cache_dir: str | os.PathLike | None = None,
) -> LayerProfile:
    """Scores the hidden states 0 to n of a model, each as mean over a clip's frames, for one or several sets of labels.

    The audio is read once, whatever the number of label sets. Of a pre-norm model ("stable layer norm") the vectors are
    those that the model would output if it were truncated after the layer: `encoder.layer_norm(h_l)`, not h_l.

    Args:
        model: Stock or prunable, with a head or without.
        dataset: With an `audio` column and the columns of labels.
        feature_extractor: Of the model's checkpoint.
        labels: Names of columns with strings or integers, each a set of labels.
        criteria: Of "convexity", "probe", "neighbourhood_hit", "block_influence" and "cka": what to compute.
        n_neighbors: Of the graph.
        max_pairs: See `graph_convexity`.
        seed: Of all that is drawn.
        num_permutations: Of the labels, for the band that convexity without meaning falls into.
        batch_size: Clips of a batch, at most.
        cache_dir: Where pooled features are kept and looked for, see `pooled_features`.

    Raises:
        ValueError: If a column is missing, no clip can be read, or the features and labels are such as
            `graph_convexity` refuses.
    """
    if isinstance(labels, str):
        raise ValueError(f"labels is the string {labels!r}; give a list of columns.")
    if unknown := [name for name in labels if name not in dataset.column_names]:
        raise ValueError(
            f"There is no column {', '.join(unknown)}; the columns are {', '.join(dataset.column_names)}."
        )
    features = pooled_features(model, feature_extractor, dataset, batch_size=batch_size, cache_dir=cache_dir)
    return profile_features(
        features.layers,
        {name: _read_labels(dataset, name, features.clips) for name in labels},
        criteria=criteria,
        n_neighbors=n_neighbors,
        max_pairs=max_pairs,
        seed=seed,
        num_permutations=num_permutations,
    )


def _read_labels(dataset: Dataset, column: str, clips: np.ndarray) -> list:
    """The labels of some clips, by their names where the data set has them."""
    feature = dataset.features[column]
    values = dataset.with_format(None)[column][:]
    labels = [values[clip] for clip in clips]
    return feature.int2str(labels) if isinstance(feature, ClassLabel) else labels


def profile_features(
    features: np.ndarray,
    labels: Mapping[str, Sequence],
    *,
    criteria: Sequence[str] = CRITERIA,
    n_neighbors: int = 10,
    max_pairs: int | None = 5000,
    seed: int = 42,
    num_permutations: int = 20,
) -> LayerProfile:
    """Scores features of several layers; `layer_convexity` for those who have features already.

    Args:
        features: Of shape (layers + 1, clips, dimensions).
        labels: Strings or integers of the clips, for each set of labels.
        criteria: Of "convexity", "probe", "neighbourhood_hit", "block_influence" and "cka": what to compute.
        n_neighbors: Of the graph.
        max_pairs: See `graph_convexity`.
        seed: Of all that is drawn.
        num_permutations: Of the labels.

    Raises:
        ValueError: If a criterion is unknown, or the features and labels are such as `graph_convexity` refuses.
    """
    if isinstance(criteria, str) or not set(criteria) <= set(CRITERIA):
        raise ValueError(f"criteria is {criteria!r}; give a list of some of {', '.join(CRITERIA)}.")
    if np.ndim(features) != 3 or len(features) < 2:
        raise ValueError(
            f"The features have the shape {np.shape(features)}; it must be (layers + 1, clips, dimensions), with layers."
        )
    num_clips = features.shape[1]
    classes = {name: PointClasses.of(values, num_clips) for name, values in labels.items()}
    profile = LayerProfile(
        num_layers=len(features) - 1,
        num_clips=num_clips,
        n_neighbors=n_neighbors,
        max_pairs=max_pairs,
        seed=seed,
        labels={name: LabelProfile() for name in labels},
    )
    if {"convexity", "neighbourhood_hit"} & set(criteria):
        permutations = [
            np.random.default_rng((seed, number)).permutation(num_clips) for number in range(num_permutations)
        ]
        _add_graph_scores(profile, features, classes, criteria, permutations)
    if "probe" in criteria:
        _add_probes(profile, features, classes)
    if "block_influence" in criteria:
        profile.block_influence = block_influence(features).tolist()
    if "cka" in criteria:
        profile.cka = [linear_cka(layer, features[-1]) for layer in features]
    return profile


def _add_graph_scores(
    profile: LayerProfile,
    features: np.ndarray,
    classes: Mapping[str, PointClasses],
    criteria: Sequence[str],
    permutations: Sequence[np.ndarray],
) -> None:
    """What is read from the graph of each layer: convexity, of permuted labels too, and neighbourhood hit."""
    pairs = [ClassPairs(classes[name], profile.max_pairs, profile.seed) for name in classes]
    for label_profile in profile.labels.values():
        if "convexity" in criteria:
            label_profile.convexity = LayerScores()
            label_profile.permuted_convexity = [[] for _ in permutations]
        if "neighbourhood_hit" in criteria:
            label_profile.neighbourhood_hit = LayerScores()
    for layer in logging.tqdm(features, desc="Graph of each layer", unit="layer"):
        graph = nearest_neighbor_graph(layer, profile.n_neighbors)
        if "convexity" in criteria:
            for name, scores in zip(classes, score_paths(graph, pairs, permutations), strict=True):
                label_profile = profile.labels[name]
                label_profile.convexity.add_layer(classes[name], scores.class_means)
                for values, class_means in zip(
                    label_profile.permuted_convexity, scores.permuted_class_means, strict=True
                ):
                    values.append(float(class_means.mean()))
        if "neighbourhood_hit" in criteria:
            for name, classes_of_label in classes.items():
                hits = neighbourhood_hit(graph, classes_of_label.codes)
                profile.labels[name].neighbourhood_hit.add_layer(classes_of_label, classes_of_label.means(hits))


def _add_probes(profile: LayerProfile, features: np.ndarray, classes: Mapping[str, PointClasses]) -> None:
    for name, classes_of_label in classes.items():
        probes = [
            probe_accuracy(layer, classes_of_label, profile.seed)
            for layer in logging.tqdm(features, desc=f"Probes of {name}", unit="layer")
        ]
        values, errors = zip(*probes, strict=True)
        profile.labels[name].probe = LayerScores(list(values), list(errors))
