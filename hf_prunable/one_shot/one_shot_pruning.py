"""One-shot pruning: a smaller model from a few minutes of audio, without training."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence

import torch
from transformers.utils import logging

from ..modeling.pretrained import PrunableModelMixin
from ..modeling.size import PARAMETERS, Measure, UnitCounts
from ..modeling.units import DEFAULT_UNITS
from ..pruning.compaction import cut_out
from .allocation import allocate
from .calibration import own_clips, own_share
from .config import OneShotConfig
from .curves import CurveMeasurement
from .layerwise import LayerwisePruning


logger = logging.get_logger(__name__)

# Part of a model that a round leaves, by default: four rounds take it to 28 %.
ROUND_FACTOR = 0.73


class OneShotPruning:
    """Prunes a model in rounds, each with new statistics.

    Args:
        model: Base or head model without gates; it is not changed.
        clips: Audio of shape (clips, samples), normalised as the model wants it; the same in all processes.
        units: Kinds of units to prune: "qk", "vo", "int".
        measure: Measure of the targets.
        teacher: Base model whose hidden states are to be kept; `None` for those of the model.
        config: Settings.
    """

    def __init__(
        self,
        model: PrunableModelMixin,
        clips: torch.Tensor,
        *,
        units: Sequence[str] = DEFAULT_UNITS,
        measure: Measure = PARAMETERS,
        teacher: PrunableModelMixin | None = None,
        config: OneShotConfig | None = None,
    ):
        self.config = OneShotConfig() if config is None else config
        self.model = copy.deepcopy(model).float().eval()
        self.teacher = copy.deepcopy((model if teacher is None else teacher).base_model).float().eval()
        self.clips, self.num_clips = own_clips(clips), len(clips)
        self.units, self.measure = tuple(units), measure

    def size(self) -> int:
        """Returns the present size of the encoder."""
        return self.measure.count(self.model.config, UnitCounts.of(self.model.config.shape))

    @torch.no_grad()
    def round(self, max_size: float) -> PrunableModelMixin:
        """Prunes the present model to a size and returns it.

        Args:
            max_size: Largest size allowed, in the unit of the measure.
        """
        base, config = self.model.base_model, self.config
        curve_clips = self.clips[: own_share(min(config.curve_clips, self.num_clips))]
        price_clips = own_share(min(config.price_clips, self.num_clips))
        curves = CurveMeasurement(base, self.teacher, curve_clips, price_clips, self.units, config).curves()
        shape = allocate(base.config, base.config.shape, curves, max_size, self.measure)
        self.model = copy.deepcopy(self.model)
        cut = LayerwisePruning(self.model.base_model, self.teacher, self.clips, config).prune_(shape)
        self.model = cut_out(self.model, cut)
        return self.model

    def run(self, targets: Sequence[float], rounds: int | None = None) -> Iterator[PrunableModelMixin]:
        """Prunes to one target after the other and yields the model at each.

        Args:
            targets: Fractions of the original dense encoder to remove, in ascending order.
            rounds: Number of rounds to the last target, 1 or more.
        """
        dense = self.measure.dense(self.model.config)
        for sizes in sizes_of_rounds(self.size(), [(1 - target) * dense for target in targets], rounds):
            for size in sizes:
                self.round(size)
            yield self.model


def sizes_of_rounds(present: float, sizes: Sequence[float], rounds: int | None = None) -> list[list[float]]:
    """Returns the sizes that the rounds before each target end at, that of the target included.

    All rounds leave about the same part of the model.

    Args:
        present: Present size.
        sizes: Sizes of the targets, in descending order.
        rounds: Number of rounds to the last target, 1 or more; by default each leaves about 73 %.
    """
    factor = ROUND_FACTOR if rounds is None else (sizes[-1] / present) ** (1 / rounds)
    steps = []
    for size in sizes:
        num_rounds = max(1, round(math.log(size / present) / math.log(factor)))
        steps.append([present * (size / present) ** (number / num_rounds) for number in range(1, num_rounds + 1)])
        present = size
    return steps
