"""Options of a one-shot pruning run."""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields
from typing import Any

from .config import OneShotConfig


_CONFIG_FIELDS: dict[str, Field[Any]] = {config_field.name: config_field for config_field in fields(OneShotConfig)}
# Settings that are options of the same name. The seed is that of the run.
_SHARED = (
    "ridge",
    "curve_clips",
    "price_clips",
    "price_fraction",
    "reconstruction_steps",
    "reconstruction_frames",
    "reconstruction_rate",
    "allow_few_frames",
)


def _setting(name: str) -> Any:
    """Returns a field with default and help of a setting of `OneShotConfig`."""
    setting = _CONFIG_FIELDS[name]
    return field(default=setting.default, metadata=dict(setting.metadata))


@dataclass
class OneShotArguments:
    """Options for targets by fidelity, the calibration audio, the rounds and the settings of one-shot pruning."""

    target_loss: float | None = field(
        default=None,
        metadata={"help": "Find the smallest model with at most this distillation loss on held-out clips."},
    )
    target_similarity: float | None = field(
        default=None,
        metadata={"help": "Find the smallest one with at least this mean cosine of hidden states, instead."},
    )

    calibration_clips: int = field(
        default=200, metadata={"help": "Crops of training clips that the statistics are taken from."}
    )
    calibration_seconds: float = field(default=4.0, metadata={"help": "Length of each of them in seconds."})
    rounds: int | None = field(
        default=None,
        metadata={"help": "Rounds with new statistics; by default, each leaves about three quarters."},
    )
    compare_ragged: bool = field(
        default=False,
        metadata={"help": "With `stock_shape`, measure a ragged shape of the same size as well."},
    )
    ridge: float = _setting("ridge")
    curve_clips: int = _setting("curve_clips")
    price_clips: int = _setting("price_clips")
    price_fraction: float = _setting("price_fraction")
    reconstruction_steps: int = _setting("reconstruction_steps")
    reconstruction_frames: int = _setting("reconstruction_frames")
    reconstruction_rate: float = _setting("reconstruction_rate")
    calibration_batch_size: int = _setting("batch_size")
    allow_few_frames: bool = _setting("allow_few_frames")

    def config(self, seed: int) -> OneShotConfig:
        """Returns the settings of the pruning.

        Args:
            seed: Random seed of the run.

        Raises:
            ValueError: If a value is out of range.
        """
        shared = {name: getattr(self, name) for name in _SHARED}
        return OneShotConfig(batch_size=self.calibration_batch_size, seed=seed, **shared)
