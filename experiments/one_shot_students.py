"""Students that statistics make, from plain magnitude pruning to all steps of one-shot pruning."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from hf_prunable import OneShotConfig, load_prunable, refit_
from hf_prunable.modeling.pretrained import PrunableModelMixin
from hf_prunable.modeling.size import PARAMETERS, Measure
from hf_prunable.modeling.units import DEFAULT_UNITS
from hf_prunable.one_shot.one_shot_pruning import OneShotPruning, sizes_of_rounds
from hf_prunable.pruning.magnitude import keep_largest_weights, uniform_shape
from hf_prunable.pruning.student import NOISE_OFF


TEACHER = "teacher"
# Few seconds of audio have fewer frames than a layer has inputs; the experiment measures what they give.
FULL = OneShotConfig(allow_few_frames=True)
WITHOUT_RECONSTRUCTION = OneShotConfig(allow_few_frames=True, reconstruction_steps=0)
MACS = Measure("macs")
# Rounds of the row with finer rounds for one of the default rounds.
FINER = 2

Students = Iterator[tuple[float, PrunableModelMixin]]


@dataclass(frozen=True)
class Row:
    """One row of the comparison.

    Attributes:
        label: Row name in table and pictures.
        make: Function from the teacher's folder, the targets in ascending order and calibration audio of shape (clips,
            samples) to pairs of target and student, which are computed one after the other.
        uses_audio: Whether the students depend on the audio.
        is_ladder: Whether the student of one target depends on the other targets.
        measure: Measure of the targets.
    """

    label: str
    make: Callable[[str, Sequence[float], torch.Tensor], Students]
    uses_audio: bool = True
    is_ladder: bool = False
    measure: Measure = PARAMETERS


def load_teacher(folder: str) -> PrunableModelMixin:
    """Loads a teacher in float32 without noise in training, on the GPU if there is one.

    Args:
        folder: Folder or Hub id of the dense checkpoint.
    """
    teacher = load_prunable(folder, dtype=torch.float32, **NOISE_OFF)
    return teacher.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def unpruned(folder: str, targets: Sequence[float], clips: torch.Tensor) -> Students:
    """Yields the teacher for each target.

    Args:
        folder: Folder or Hub id of the teacher.
        targets: Fractions of parameters to remove, which are ignored.
        clips: Calibration audio of shape (clips, samples), which is ignored.
    """
    teacher = load_teacher(folder)
    yield from ((target, teacher) for target in targets)


def magnitude(
    folder: str, targets: Sequence[float], clips: torch.Tensor, *, config: OneShotConfig | None = None
) -> Students:
    """Makes students of uniform widths from the units of the largest weights.

    Args:
        folder: Folder or Hub id of the teacher.
        targets: Fractions of parameters to remove.
        clips: Calibration audio of shape (clips, samples).
        config: Settings of a refit; `None` for no refit.
    """
    teacher = load_teacher(folder)
    for target in targets:
        student = keep_largest_weights(teacher, target)
        if config is not None:
            refit_(student, teacher, clips, config=config)
        yield target, student


def uniform_selected(folder: str, targets: Sequence[float], clips: torch.Tensor, *, config: OneShotConfig) -> Students:
    """Makes students of uniform widths with rotated heads, units selected by optimal brain surgeon, and a refit.

    Args:
        folder: Folder or Hub id of the teacher.
        targets: Fractions of parameters to remove.
        clips: Calibration audio of shape (clips, samples).
        config: Settings.
    """
    pruning = OneShotPruning(load_teacher(folder), clips, config=config)
    for target in targets:
        yield target, pruning.pruned(uniform_shape(pruning.model.config, target))


def one_round(
    folder: str, targets: Sequence[float], clips: torch.Tensor, *, config: OneShotConfig, stock_shape: bool = False
) -> Students:
    """Makes students by one round of one-shot pruning each, with the statistics of the dense model.

    Args:
        folder: Folder or Hub id of the teacher.
        targets: Fractions of parameters to remove.
        clips: Calibration audio of shape (clips, samples).
        config: Settings.
        stock_shape: Whether the students have shapes that a stock class can express.
    """
    pruning = OneShotPruning(load_teacher(folder), clips, stock_shape=stock_shape, config=config)
    dense = pruning.size()
    for target in targets:
        pruning.check_target(target)
        size = (1 - target) * dense
        order = pruning.order(size)
        yield target, pruning.pruned(order.shape_after(order.removals_to(size)))


def in_rounds(
    folder: str,
    targets: Sequence[float],
    clips: torch.Tensor,
    *,
    config: OneShotConfig,
    finer: int = 1,
    **options: Any,
) -> Students:
    """Makes students by one-shot pruning in rounds, each target from the student of the one before it.

    Args:
        folder: Folder or Hub id of the teacher.
        targets: Fractions to remove.
        clips: Calibration audio of shape (clips, samples).
        config: Settings.
        finer: Number of rounds for one of the default rounds, 1 or more.
        **options: Further options of `OneShotPruning`.
    """
    pruning = OneShotPruning(load_teacher(folder), clips, config=config, **options)
    dense = pruning.size()
    default = sizes_of_rounds(dense, [(1 - target) * dense for target in targets])
    rounds = None if finer == 1 else finer * sum(map(len, default))
    yield from zip(targets, pruning.run(targets, rounds), strict=True)


ROWS = {
    TEACHER: Row("teacher", unpruned, uses_audio=False),
    "magnitude": Row("largest weights, uniform widths", magnitude, uses_audio=False),
    "magnitude_refit": Row("largest weights, refit", partial(magnitude, config=WITHOUT_RECONSTRUCTION)),
    "magnitude_reconstructed": Row("largest weights, refit, reconstruction", partial(magnitude, config=FULL)),
    "uniform_selected": Row(
        "uniform widths, rotated and selected", partial(uniform_selected, config=WITHOUT_RECONSTRUCTION)
    ),
    "one_round_refit": Row("one round, no reconstruction", partial(one_round, config=WITHOUT_RECONSTRUCTION)),
    "one_round": Row("one round", partial(one_round, config=FULL)),
    "rounds_refit": Row(
        "rounds, no reconstruction", partial(in_rounds, config=WITHOUT_RECONSTRUCTION), is_ladder=True
    ),
    "rounds": Row("rounds (default)", partial(in_rounds, config=FULL), is_ladder=True),
    "finer_rounds": Row("twice as many rounds", partial(in_rounds, config=FULL, finer=FINER), is_ladder=True),
    "stock_shape": Row("stock shape", partial(one_round, config=FULL, stock_shape=True)),
    "macs": Row("without channels", partial(in_rounds, config=FULL, measure=MACS), is_ladder=True, measure=MACS),
    "macs_channels": Row(
        "with channels",
        partial(in_rounds, config=FULL, measure=MACS, units=(*DEFAULT_UNITS, "conv")),
        is_ladder=True,
        measure=MACS,
    ),
}


def check_rows(rows: Sequence[str], known: Collection[str] = tuple(ROWS)) -> None:
    """Checks row names.

    Args:
        rows: Row names.
        known: Row names of the experiment.

    Raises:
        ValueError: If a name is unknown.
    """
    if unknown := [row for row in rows if row not in known]:
        raise ValueError(f"There is no row {', '.join(map(repr, unknown))}; choose from {', '.join(known)}.")
