"""One-shot pruning: a smaller model from a few minutes of audio, without training."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from ..modeling.configuration import PrunableConfigMixin
from ..modeling.loading import build_like
from ..modeling.pretrained import PrunableModelMixin
from ..modeling.shape import PrunedShape
from ..modeling.size import PARAMETERS, Measure, UnitCounts
from ..modeling.units import DEFAULT_UNITS
from ..pruning.compaction import cut_out
from ..pruning.decisions import check_target_value
from ..pruning.stock_shape import STOCK_UNITS, stock_width, with_width
from .allocation import OneWidth, RemovalOrder, cheapest_first, smallest_shape
from .calibration import check_clips, check_models, own_clips, own_share
from .config import OneShotConfig
from .curves import CurveMeasurement
from .layerwise import LayerwisePruning


# Kinds of units that statistics can prune.
ONE_SHOT_UNITS = ("qk", "vo", "int", "conv")
# Part of a model that a round leaves, by default: four rounds take it to 28 %.
ROUND_FACTOR = 0.73


class OneShotPruning:
    """Prunes a model in rounds, each with new statistics.

    The options are the keywords of `one_shot_prune`, hence their number.

    Args:
        model: Base or head model without gates; it is not changed.
        clips: Audio of shape (clips, samples), normalised as the model wants it; the same in all processes.
        units: Kinds of units to prune: "qk", "vo", "int", "conv".
        measure: Measure of the targets.
        teacher: Base model whose hidden states are to be kept; `None` for those of the model.
        stock_shape: Whether the result has a shape that a stock class can express: only units of the kind "int" are
            removed then, the same number in each layer.
        config: Settings.
    """

    def __init__(  # noqa: PLR0913 - keywords of `one_shot_prune`, which pass through
        self,
        model: PrunableModelMixin,
        clips: torch.Tensor,
        *,
        units: Sequence[str] = DEFAULT_UNITS,
        measure: Measure = PARAMETERS,
        teacher: PrunableModelMixin | None = None,
        stock_shape: bool = False,
        config: OneShotConfig | None = None,
    ):
        self.config = OneShotConfig() if config is None else config
        teacher = model if teacher is None else teacher
        check_units(units, model)
        check_models(model, teacher)
        check_clips(clips, model, self.config.allow_few_frames)
        self.model = self._initial = copy.deepcopy(model).float().eval()
        self.teacher = copy.deepcopy(teacher.base_model).float().eval().to(model.device)
        self.clips, self.num_clips = own_clips(clips), len(clips)
        self.units, self.measure = STOCK_UNITS if stock_shape else tuple(units), measure
        self.stock_shape = stock_shape

    def check_target(self, target: float) -> None:
        """Checks that the units can reach a target.

        Args:
            target: Fraction of the original dense encoder to remove, between 0 and 1.

        Raises:
            ValueError: If they cannot.
        """
        check_reachable(self.model.config, target, self.measure, self.units, self.stock_shape)

    def size(self) -> int:
        """Returns the present size of the encoder."""
        return self.measure.count(self.model.config, self.counts(self.model))

    @staticmethod
    def counts(model: PrunableModelMixin) -> UnitCounts:
        """Returns the unit counts of a model."""
        return UnitCounts.of(model.config.shape)

    def round(self, max_size: float, is_draft: bool = False) -> RemovalOrder:
        """Prunes the present model to a size, and returns the order of its removals.

        Args:
            max_size: Largest size allowed, in the unit of the measure.
            is_draft: Whether further rounds follow before the model is used, as in `pruned`.

        Raises:
            ValueError: If the size cannot be reached.
        """
        order = self.order(max_size)
        self.model = self.pruned(order.shape_after(order.removals_to(max_size)), is_draft)
        return order

    @torch.no_grad()
    def order(self, max_size: float) -> RemovalOrder:
        """Measures what the units of the present model are worth, and returns the order of their removal.

        Args:
            max_size: Size that the order is best for, in the unit of the measure.

        Raises:
            ValueError: If the size cannot be reached.
        """
        config = self.model.config
        if self.stock_shape:
            return OneWidth(config, self.measure)
        return cheapest_first(config, config.shape, self.curve_measurement().estimate(), self.measure, max_size)

    def curve_measurement(self) -> CurveMeasurement:
        """Returns a measurement of what the units of the present model are worth, on the clips for it."""
        price_clips = own_share(min(self.config.price_clips, self.num_clips))
        clips = self._curve_clips()
        return CurveMeasurement(self.model.base_model, self.teacher, clips, price_clips, self.units, self.config)

    @torch.no_grad()
    def pruned(self, shape: PrunedShape, is_draft: bool = False) -> PrunableModelMixin:
        """Returns the present model pruned to a shape.

        Args:
            shape: Shape of the result, with no width above the present one.
            is_draft: Whether further rounds follow, which refit all weights anew: a draft takes its statistics from
                `curve_clips` and makes no reconstruction steps, which is several times faster.
        """
        model, clips, config = self._with_initial_convolutions(), self.clips, self.config
        if is_draft:
            clips = self._curve_clips()
            config = replace(config, reconstruction_steps=0)
        cut = LayerwisePruning(model.base_model, self.teacher, clips, config).prune_(shape)
        return cut_out(model, cut)

    def _curve_clips(self) -> torch.Tensor:
        """Returns this process's part of the first clips, from which curves and drafts take their statistics."""
        return self.clips[: own_share(min(self.config.curve_clips, self.num_clips))]

    def _with_initial_convolutions(self) -> PrunableModelMixin:
        """Returns a copy of the present model with the convolutions that it had before the first round.

        Channels are selected among all of these in every round. Refits of channels that were refitted before would add up
        their errors.
        """
        channels = self._initial.config.shape.conv_channels
        shape = replace(self.model.config.shape, conv_channels=channels)
        if shape == self.model.config.shape:
            return copy.deepcopy(self.model)
        config = copy.deepcopy(self.model.config)
        config.pruned_shape = None if shape.is_dense(config) else shape.to_dict()
        convolutions = {
            name: tensor.clone()
            for name, tensor in self._initial.state_dict().items()
            if "feature_extractor.conv_layers." in name
        }
        return build_like(self.model, config, self.model.state_dict() | convolutions)

    def run(self, targets: Sequence[float], rounds: int | None = None) -> Iterator[PrunableModelMixin]:
        """Prunes to one target after the other and yields the model at each.

        Args:
            targets: Fractions of the original dense encoder to remove, in ascending order.
            rounds: Number of rounds to the last target, 1 or more; by default each leaves about 73 % of the model.

        Raises:
            ValueError: If a target cannot be reached, targets are not ascending, or `rounds` is below 1.
        """
        if list(targets) != sorted(set(targets)) or not targets:
            raise ValueError(f"Targets must be in ascending order, but are {list(targets)}.")
        if rounds is not None and rounds < 1:
            raise ValueError(f"`rounds` must be at least 1, but is {rounds}.")
        for target in targets:
            self.check_target(target)
        dense = self.measure.dense(self.model.config)
        for sizes in sizes_of_rounds(self.size(), [(1 - target) * dense for target in targets], rounds):
            for size in sizes:
                self.round(size, is_draft=size != sizes[-1])
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


def check_reachable(
    config: PrunableConfigMixin, target: float, measure: Measure, units: Sequence[str], stock_shape: bool
) -> None:
    """Checks that the removal of units can reach a target.

    Args:
        config: Configuration of the model.
        target: Fraction of the original dense encoder to remove, between 0 and 1.
        measure: Measure of the target.
        units: Kinds of units to prune.
        stock_shape: Whether the shape must be one that a stock class can express.

    Raises:
        ValueError: If it cannot.
    """
    least = UnitCounts.of(least_shape(config, units, stock_shape))
    check_target_value(config, target, measure, measure.sparsity(config, least), STOCK_UNITS if stock_shape else units)


def least_shape(config: PrunableConfigMixin, units: Sequence[str], stock_shape: bool) -> PrunedShape:
    """Returns the shape that is left when all units that may go are removed.

    Args:
        config: Configuration of the model.
        units: Kinds of units to prune.
        stock_shape: Whether the shape must be one that a stock class can express.
    """
    if not stock_shape:
        return smallest_shape(config.shape, units)
    stock_width(config)
    # A stock class has no feed-forward block without units.
    return with_width(config.shape, 1)


def check_units(units: Sequence[str], model: PrunableModelMixin) -> None:
    """Checks the kinds of units to prune.

    Args:
        units: Kinds of units.
        model: Base or head model.

    Raises:
        ValueError: If one cannot be pruned by statistics, or there are none.
    """
    unknown = sorted(set(units) - set(ONE_SHOT_UNITS))
    if unknown or not units:
        raise ValueError(f"Units are {list(units)}; one-shot pruning removes {', '.join(ONE_SHOT_UNITS)}.")
    if "conv" in units and model.config.feat_extract_norm != "group":
        raise ValueError(
            "The convolutions of this model are normalised over all channels, and removing one would change the others. "
            "Leave 'conv' out of the units."
        )
