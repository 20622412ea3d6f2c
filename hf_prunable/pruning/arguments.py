"""What to prune and to what size, as options."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..modeling.size import MAC_SECONDS, Measure, choose_target
from ..modeling.units import DEFAULT_UNITS


DEFAULT_TARGET = 0.72


@dataclass
class PruningArguments:
    """What to prune, and to what size."""

    model_name_or_path: str = field(metadata={"help": "Folder or Hub id of the checkpoint, stock or pruned before."})
    teacher_name_or_path: str | None = field(
        default=None, metadata={"help": "Checkpoint that the student learns from; the model itself by default."}
    )
    target_sparsity: list[float] | None = field(
        default=None,
        metadata={
            "help": f"Part of all parameters of the dense encoder to remove, {DEFAULT_TARGET} by default; several in "
            "ascending order for a model each."
        },
    )
    target_macs: list[float] | None = field(
        default=None,
        metadata={"help": "Part of its multiply-accumulates to remove, instead of `target_sparsity`; or several."},
    )
    mac_seconds: float = field(
        default=MAC_SECONDS, metadata={"help": "Length of the clip that multiply-accumulates are counted for."}
    )
    round_to: int | None = field(
        default=None,
        metadata={"help": "Round widths to multiples of this number, which moves the size off the target."},
    )
    prune_units: list[str] = field(
        default_factory=lambda: list(DEFAULT_UNITS),
        metadata={"help": "Units with gates: mha, head, qk, vo, ffn, int, conv."},
    )
    ste: bool = field(default=True, metadata={"help": "Let gradients pass the gates' hard limits."})
    initial_drop_rate: float = field(
        default=0.05, metadata={"help": "Where all gates start: nearer to 0, they take longer to reach a decision."}
    )
    initial_norm_spread: float = field(
        default=1.0,
        metadata={
            "help": "How far apart gates start in the order of their units' weight norms: log_alpha of one standard "
            "deviation; 0 starts all alike, as the paper does."
        },
    )
    latency_seconds: float = field(default=10.0, metadata={"help": "Length of the clip that latency is measured on."})
    override: bool = field(
        default=False, metadata={"help": "Go on with an interrupted run although the settings have changed."}
    )

    def __post_init__(self):
        # A recipe may name a single target without the brackets of a list.
        for name in ("target_sparsity", "target_macs"):
            if isinstance(getattr(self, name), int | float):
                setattr(self, name, [getattr(self, name)])

    def targets(self) -> tuple[list[float], Measure]:
        """The targets asked for, and what they are measured in.

        Raises:
            ValueError: If they are given in parameters and in multiply-accumulates.
        """
        targets, measure = choose_target(self.target_sparsity, self.target_macs, self.mac_seconds)
        return [DEFAULT_TARGET] if targets is None else targets, measure

    def parts(self) -> list[str]:
        """The folder of each target inside the output: the output itself where there is only one target."""
        targets, measure = self.targets()
        name = measure.option.removeprefix("target_")
        return [f"{name}-{target:g}" for target in targets] if len(targets) > 1 else [""]
