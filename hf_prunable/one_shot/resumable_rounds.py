"""Rounds of one-shot pruning that an interrupted run does not make again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers.utils import logging

from ..runtime.files import DamagedFileError
from .calibration import from_first_process, rank_and_size
from .one_shot_pruning import OneShotPruning
from .round_files import PruningRound, load_round, round_path, save_round


logger = logging.get_logger(__name__)


class ResumableRounds:
    """Rounds that leave a file each, from which an interrupted run continues.

    In a distributed run, all processes make the calls. They skip the rounds whose files the first one sees, and it alone
    writes files.

    Args:
        pruning: Pruning of the model, at its start.
        folder: Folder of the files.
        num_rounds: Number of rounds in all.
        title: What the log calls a round.

    Attributes:
        num_finished: Number of rounds that were finished before an interruption, as far as their files are whole.
        records: Records of the rounds so far, those of finished rounds included.
    """

    def __init__(self, pruning: OneShotPruning, folder: Path, num_rounds: int, title: str = "Round"):
        self.pruning, self.folder, self.num_rounds, self.title = pruning, folder, num_rounds, title
        is_there = [round_path(folder, number).exists() for number in range(1, num_rounds + 1)]
        self.num_finished = from_first_process([*is_there, False].index(False))
        self.records: list[PruningRound] = []

    def prune_(self, sizes: Sequence[float]) -> None:
        """Makes the next rounds, or takes them from their files.

        Args:
            sizes: Sizes that the rounds end at, in the unit of the measure; all but the last are drafts.
        """
        for size in sizes:
            number = len(self.records) + 1
            path = round_path(self.folder, number)
            record = self._finished_round(path, number)
            if record is None:
                record = self._round(size, number, is_draft=size != sizes[-1])
                if rank_and_size()[0] == 0:
                    path.parent.mkdir(exist_ok=True)
                    save_round(path, self.pruning.model, record)
            self.records.append(record)

    def _finished_round(self, path: Path, number: int) -> PruningRound | None:
        """Takes a round from its file; returns `None` if it was not finished, or its file is damaged."""
        if number > self.num_finished:
            return None
        try:
            self.pruning.model, record = load_round(path, self.pruning.model)
        except DamagedFileError as error:
            logger.warning(f"{error}. Going back to the round before.")
            # The rounds after it are made again as well.
            self.num_finished = number - 1
            return None
        return record

    def _round(self, size: float, number: int, is_draft: bool) -> PruningRound:
        """Makes one round and returns its record."""
        pruning = self.pruning
        before, dense = pruning.size(), pruning.measure.dense(pruning.model.config)
        logger.info(
            f"{self.title} {number} of {self.num_rounds}: from {before / dense:.1%} to {size / dense:.1%} of the dense "
            f"encoder's {pruning.measure}."
        )
        order = pruning.round(size, is_draft=is_draft)
        return PruningRound.after(pruning, pruning.model, order)
