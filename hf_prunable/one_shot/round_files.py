"""Files that the rounds of one-shot pruning leave in the folder of a run, from which an interrupted run continues."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ..modeling.loading import build_like
from ..modeling.pretrained import PrunableModelMixin
from ..modeling.shape import PrunedShape
from ..modeling.size import UnitCounts
from ..runtime.files import DamagedFileError, read_tensors, save_tensors_atomically
from .allocation import CheapestFirst, RemovalOrder
from .loss_estimate import LossEstimate
from .one_shot_pruning import OneShotPruning


@dataclass(frozen=True)
class UnitPrice:
    """What a kind of unit in one layer is worth.

    Attributes:
        layer_idx: Index of the layer, or of the convolution, from 0.
        unit: Kind of unit: "qk", "vo", "int" or "conv".
        loss_growth: Estimated growth of the loss when a fraction of these units is removed.
    """

    layer_idx: int
    unit: str
    loss_growth: float


@dataclass(frozen=True)
class PruningRound:
    """Record of one round.

    Attributes:
        sparsity: Fraction of the original dense encoder that is removed after the round.
        conv_channels: Channels that are left in each convolution.
        query_key: Query/key dimensions that are left in each layer.
        value_output: Value/output dimensions that are left in each layer.
        intermediate: Intermediate units that are left in each layer.
        price_fraction: Fraction of the units that the prices are for.
        prices: Prices of all kinds of units before the round; empty for a round that measures none.
    """

    sparsity: float
    conv_channels: list[int]
    query_key: list[int]
    value_output: list[int]
    intermediate: list[int]
    price_fraction: float
    prices: list[UnitPrice]

    @classmethod
    def of(
        cls, shape: PrunedShape, sparsity: float, estimate: LossEstimate | None, price_fraction: float
    ) -> PruningRound:
        """Records a round.

        Args:
            shape: Shape after the round.
            sparsity: Fraction of the original dense encoder that is removed after the round.
            estimate: Estimate that the round was allocated by; `None` if there was none.
            price_fraction: Fraction of the units to give prices for, between 0 and 1.
        """
        attentions = [layer.attention for layer in shape.layers]
        return cls(
            sparsity,
            list(shape.conv_channels),
            [0 if attention is None else sum(attention.query_key) for attention in attentions],
            [0 if attention is None else sum(attention.value_output) for attention in attentions],
            [layer.intermediate or 0 for layer in shape.layers],
            price_fraction,
            [
                UnitPrice(
                    curve.layer_idx,
                    curve.unit,
                    estimate.growth(curve, round(len(curve.growth) * price_fraction)),
                )
                for curve in estimate.curves
            ]
            if estimate is not None
            else [],
        )

    @classmethod
    def after(cls, pruning: OneShotPruning, model: PrunableModelMixin, order: RemovalOrder) -> PruningRound:
        """Records a round that has made a model.

        Args:
            pruning: Pruning of the run.
            model: Model after the round.
            order: Order of the removals of the round.
        """
        shape, measure = model.config.shape, pruning.measure
        estimate = order.estimate if isinstance(order, CheapestFirst) else None
        sparsity = measure.sparsity(model.config, UnitCounts.of(shape))
        return cls.of(shape, sparsity, estimate, pruning.config.price_fraction)

    @classmethod
    def from_json(cls, text: str) -> PruningRound:
        """Reads the form that `to_json` writes."""
        values = json.loads(text)
        return cls(**(values | {"prices": [UnitPrice(**price) for price in values["prices"]]}))

    def to_json(self) -> str:
        """Returns the record as JSON."""
        return json.dumps(asdict(self))


def round_path(folder: Path, number: int) -> Path:
    """Returns the file of a round.

    Args:
        folder: Folder of the run.
        number: Number of the round over all targets, from 1.
    """
    return folder / f"round_{number}.safetensors"


def save_round(path: Path, model: PrunableModelMixin, record: PruningRound) -> None:
    """Writes a model with its shape and the record of the round.

    Args:
        path: Output file, in the safetensors format.
        model: Model after the round.
        record: Record of the round.
    """
    metadata = {"pruned_shape": json.dumps(model.config.shape.to_dict()), "round": record.to_json()}
    save_tensors_atomically(path, model.state_dict(), metadata)


def load_round(path: Path, model: PrunableModelMixin) -> tuple[PrunableModelMixin, PruningRound]:
    """Reads the model after a round.

    Args:
        path: File that `save_round` wrote.
        model: Model before the first round.

    Returns:
        A model with class, mode and device of the given one, and the record of the round.

    Raises:
        DamagedFileError: If the file is not as it was written.
    """
    state, metadata = read_tensors(path)
    config = copy.deepcopy(model.config)
    try:
        shape = PrunedShape.from_dict(json.loads(metadata["pruned_shape"]))
        record = PruningRound.from_json(metadata["round"])
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(f"{path} is damaged: its header holds no round ({error!r})") from error
    config.pruned_shape = None if shape.is_dense(config) else shape.to_dict()
    return build_like(model, config, state), record
