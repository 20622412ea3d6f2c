"""Layer profiles with given values."""

from hf_prunable.truncation.convexity_config import ConvexityConfig
from hf_prunable.truncation.layer_profile import LabelProfile, LayerProfile, LayerScores


def profile(values, name="word"):
    """A profile with these values of convexity, of two classes."""
    scores = LayerScores(values, [0.01] * len(values), {"a": values, "b": values})
    return LayerProfile(len(values) - 1, 40, ConvexityConfig(max_pairs=None), {name: LabelProfile(convexity=scores)})


def complete_profile(values):
    """A profile with these values of every criterion for words."""
    scores = profile(values)
    labels = scores.labels["word"]
    labels.probe = labels.neighbourhood_hit = labels.convexity
    scores.block_influence, scores.cka = values[1:], [*values[:-1], 1.0]
    return scores
