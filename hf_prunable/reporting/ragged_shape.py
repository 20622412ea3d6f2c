"""What a ragged shape of the same size keeps, beside a stock-shaped model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..modeling.pretrained import PrunableModelMixin
from ..pruning.fidelity import Fidelity
from ..runtime.tables import markdown_table
from .measurement import ModelSize, measure_size


@dataclass
class RaggedShape:
    """Size and fidelity of a model whose widths vary between heads and layers; the model itself is not kept.

    Attributes:
        size: Size of its encoder.
        shape: Its shape, in the form of `PrunedShape.to_dict`.
        fidelity: Agreement of its hidden states with those that the stock-shaped model is compared with, on the same
            held-out audio; `None` if they cannot be compared.
    """

    size: ModelSize
    shape: dict[str, Any]
    fidelity: Fidelity | None

    @classmethod
    def of(cls, model: PrunableModelMixin, fidelity: Fidelity | None) -> RaggedShape:
        """Describes a model.

        Args:
            model: Base model of a ragged shape.
            fidelity: Agreement of its hidden states with the teacher's.
        """
        return cls(measure_size(model), model.config.shape.to_dict(), fidelity)


def format_ragged_table(size: ModelSize, fidelity: Fidelity, ragged: RaggedShape) -> str:
    """Formats a stock-shaped model and the ragged one side by side as a Markdown table.

    Args:
        size: Size of the stock-shaped encoder.
        fidelity: Agreement of its hidden states with the teacher's.
        ragged: Ragged model of the same size, with its agreement.
    """
    assert ragged.fidelity is not None
    sizes, fidelities = (size, ragged.size), (fidelity, ragged.fidelity)
    rows = [
        ("Encoder parameters", *(f"{each.num_parameters:,}" for each in sizes)),
        (f"Multiply-accumulates, {size.mac_seconds:g} s clip", *(f"{each.macs / 1e9:.3g} G" for each in sizes)),
        ("Cosine, mean of all hidden states", *(f"{each.mean_cosine:.4f}" for each in fidelities)),
        ("Relative error, last hidden state", *(f"{each.relative_error[-1]:.4f}" for each in fidelities)),
        ("Distillation loss without a projection", *(f"{each.distillation_loss:.4f}" for each in fidelities)),
    ]
    return markdown_table(("", "this model", "widths that vary"), rows)
