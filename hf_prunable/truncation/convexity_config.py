"""The settings of graph convexity and of layer profiles, in one object."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from .clip_batches import BATCH_SIZE


CRITERIA = ("convexity", "probe", "neighbourhood_hit", "block_influence", "cka")
# The largest seed of `numpy.random.RandomState`, which samples the pairs.
MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class ConvexityConfig:
    """Settings of `graph_convexity`, `profile_features` and `layer_convexity`.

    `graph_convexity` uses `n_neighbors`, `max_pairs` and `seed`; `profile_features` uses all but `batch_size`.

        ConvexityConfig(n_neighbors=5, criteria=["convexity", "probe"])

    Args:
        n_neighbors: Number of nearest neighbours that each point is connected to, from 1 to the number of points minus
            1. Scores rise with it. Default: 10, as in arXiv 2408.11858.
        max_pairs: Maximum number of ordered pairs of points scored per class, 2 or more. A class with more pairs is
            sampled; `None` scores all pairs of every class. Default: 5000, as in the authors' code
            (LenkaTetkova/Convexity-of-representations).
        seed: Random seed of the pair sample, the label permutations and the probe's folds, 0 to 2**32 - 1. Default:
            42, as in the authors' code.
        num_permutations: Number of random permutations of the labels that are scored to estimate chance level, 0 or
            more; `LabelProfile.permuted_band` needs 2. Default: 20. The publications have no such estimate.
        criteria: What to compute for each layer, a list of names among "convexity", "probe", "neighbourhood_hit",
            "block_influence" and "cka" (see `choose_layer`). Default: all of them.
        batch_size: Maximum number of clips per forward pass of the model, 1 or more. It changes time and memory, and
            results only by rounding. Default: 8.

    Raises:
        TypeError: If a number is not an integer.
        ValueError: If a value is out of range, or a criterion is unknown.
    """

    n_neighbors: int = field(default=10, metadata={"help": "Number of nearest neighbours of each clip in the graph."})
    max_pairs: int | None = field(
        default=5000,
        metadata={"help": "Maximum number of pairs of clips scored per class; none for all."},
    )
    seed: int = field(
        default=42, metadata={"help": "Random seed of the pair sample, the label permutations and the probe's folds."}
    )
    num_permutations: int = field(
        default=20, metadata={"help": "Number of permutations of the labels that estimate chance level."}
    )
    criteria: Sequence[str] = field(
        default=CRITERIA, metadata={"help": f"What to compute for each layer: {', '.join(CRITERIA)}."}
    )
    batch_size: int = field(
        default=BATCH_SIZE, metadata={"help": "Maximum number of clips per forward pass of the model."}
    )

    def __post_init__(self) -> None:
        self._check_integer("n_neighbors", least=1)
        if self.max_pairs is not None:
            self._check_integer("max_pairs", least=2, alternative=", or None for all pairs")
        self._check_integer("seed", least=0, most=MAX_SEED)
        self._check_integer("num_permutations", least=0)
        self._check_integer("batch_size", least=1)
        if isinstance(self.criteria, str) or not set(self.criteria) <= set(CRITERIA):
            raise ValueError(f"criteria is {self.criteria!r}; give a list of some of {', '.join(CRITERIA)}.")
        # A tuple, so that equal settings compare equal whether the criteria were a list or a tuple.
        object.__setattr__(self, "criteria", tuple(self.criteria))

    def _check_integer(self, name: str, *, least: int, most: int | None = None, alternative: str = "") -> None:
        value = getattr(self, name)
        try:
            integer = operator.index(value)
        except TypeError as error:
            raise TypeError(f"`{name}` is {value!r}; give an integer{alternative}.") from error
        if integer < least or (most is not None and integer > most):
            allowed = f"{least} or more" if most is None else f"{least} to {most}"
            raise ValueError(f"`{name}` is {value!r}; give {allowed}{alternative}.")
        # A Python integer in place of numpy's, which JSON cannot hold.
        object.__setattr__(self, name, integer)

    @classmethod
    def from_call(
        cls, config: ConvexityConfig | None, overrides: Mapping[str, Any], allowed: Sequence[str] | None = None
    ) -> ConvexityConfig:
        """The settings of one function call: a config object, with single fields overridden by keyword arguments.

        Args:
            config: Settings to start from; `None` for the defaults.
            overrides: Field names with the values that replace those of `config`.
            allowed: Names of the fields that may be overridden; `None` for all.

        Raises:
            TypeError: If an override is not the name of an allowed field.
        """
        allowed = [setting.name for setting in fields(cls)] if allowed is None else allowed
        if unknown := [name for name in overrides if name not in allowed]:
            raise TypeError(
                f"There is no setting {', '.join(map(repr, unknown))}; the keyword arguments that override a "
                f"ConvexityConfig here are {', '.join(allowed)}."
            )
        return replace(cls() if config is None else config, **overrides)
