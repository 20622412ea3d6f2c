"""What a target is measured in: parameters, or the multiply-accumulates (MACs) of a clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from .size import MAC_SECONDS, UnitCounts, count_macs, count_parameters


MeasureName = Literal["parameters", "macs"]


@dataclass(frozen=True)
class Measure:
    """What size is counted in.

    Attributes:
        name: "parameters", all of the encoder's and not only the prunable ones, or "macs", the multiply-accumulates
            of one forward pass over one clip.
        mac_seconds: The clip's length in seconds; attention makes MACs grow faster than the clip.
    """

    name: MeasureName = "parameters"
    mac_seconds: float = MAC_SECONDS

    def __post_init__(self):
        if self.name not in get_args(MeasureName):
            raise ValueError(f"A measure's `name` must be one of {get_args(MeasureName)}, but is {self.name!r}.")

    def __str__(self) -> str:
        return "parameters" if self.name == "parameters" else f"multiply-accumulates of a {self.mac_seconds:g} s clip"

    @property
    def option(self) -> str:
        """The argument of `compact` that gives a target in this measure."""
        return {"parameters": "target_sparsity", "macs": "target_macs"}[self.name]

    def count(self, config: Any, counts: UnitCounts) -> Any:
        """The size of an encoder with these counts, which may be expected values.

        Args:
            config: A prunable configuration, which names the original widths.
            counts: What is left of them.

        Raises:
            ValueError: If the clip is too short for one frame.
        """
        if self.name == "parameters":
            return count_parameters(config, counts)
        return count_macs(config, counts, self.mac_seconds)

    def dense(self, config: Any) -> int:
        """The size of the original dense encoder, whatever was cut since: what sparsity is counted from."""
        return self.count(config, config.dense_counts)

    def sparsity(self, config: Any, counts: UnitCounts) -> Any:
        """The part of the original dense encoder's size that an encoder with these counts is without."""
        return 1 - self.count(config, counts) / self.dense(config)


PARAMETERS = Measure()


def choose_target(
    target_sparsity: float | None, target_macs: float | None, mac_seconds: float = MAC_SECONDS
) -> tuple[float | None, Measure]:
    """The one target that was given, if any, and what it is measured in.

    Args:
        target_sparsity: The part of the dense encoder's parameters to remove.
        target_macs: The part of its multiply-accumulates to remove.
        mac_seconds: Length of the clip that multiply-accumulates are counted for.

    Raises:
        ValueError: If both targets are given.
    """
    if target_macs is None:
        return target_sparsity, PARAMETERS
    if target_sparsity is not None:
        raise ValueError(
            f"`target_sparsity` is {target_sparsity} and `target_macs` is {target_macs}, but a model is brought to one "
            "target. Leave one of them out: the first counts parameters, the second multiply-accumulates."
        )
    return target_macs, Measure("macs", mac_seconds)
