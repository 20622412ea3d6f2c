"""Settings of one-shot pruning."""

from __future__ import annotations

from dataclasses import dataclass, field

from .refit import RIDGE


@dataclass(frozen=True)
class OneShotConfig:
    """Settings of one-shot pruning that seldom need a change.

    Raises:
        ValueError: If a value is out of range.
    """

    ridge: float = field(
        default=RIDGE, metadata={"help": "Ridge of the refits, as a fraction of the inputs' mean second moment."}
    )
    batch_size: int = field(default=8, metadata={"help": "Calibration clips that are computed at once."})
    curve_clips: int = field(
        default=48, metadata={"help": "Calibration clips from which the error of each block's removals is estimated."}
    )
    price_clips: int = field(
        default=12, metadata={"help": "Calibration clips on which the loss of a pruned block is measured."}
    )
    price_fraction: float = field(
        default=0.35, metadata={"help": "Fraction of a block that is removed to measure its loss, between 0 and 1."}
    )
    reconstruction_steps: int = field(
        default=150,
        metadata={"help": "Gradient steps on each feed-forward block alone after its refit; 0 for none."},
    )
    reconstruction_frames: int = field(default=1024, metadata={"help": "Frames in a batch of these steps."})
    reconstruction_rate: float = field(
        default=0.08,
        metadata={"help": "Learning rate of these steps, as a fraction of the weights' root mean square."},
    )
    seed: int = field(default=42, metadata={"help": "Random seed of the frames in these batches."})
    allow_few_frames: bool = field(
        default=False,
        metadata={"help": "Go on with fewer frames than a layer has inputs, with the ridge alone to decide."},
    )

    def __post_init__(self):
        for name in ("batch_size", "curve_clips", "price_clips", "reconstruction_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, but is {getattr(self, name)}.")
        for name in ("ridge", "reconstruction_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be above 0, but is {getattr(self, name)}.")
        if not 0 < self.price_fraction < 1:
            raise ValueError(f"`price_fraction` must be between 0 and 1, but is {self.price_fraction}.")
        if self.reconstruction_steps < 0:
            raise ValueError(f"`reconstruction_steps` must be 0 or more, but is {self.reconstruction_steps}.")
