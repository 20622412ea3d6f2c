"""Files that a search for the smallest model leaves in the folder of a run, from which an interrupted search continues."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from transformers.utils import logging

from ..modeling.pretrained import PrunableModelMixin
from ..pruning.fidelity import Fidelity
from ..runtime.files import write_text_atomically
from .calibration import from_first_process, rank_and_size
from .round_files import PruningRound, load_round, round_path, save_round


logger = logging.get_logger(__name__)

# File of all measured candidates in the folder of a run.
CANDIDATES_FILE = "candidates.json"


@dataclass(frozen=True)
class Candidate:
    """A model that was pruned and measured.

    Attributes:
        num_removals: Number of units that were removed from the model before the round.
        sparsity: Fraction of the original dense encoder that is removed.
        fidelity: Measured fidelity.
    """

    num_removals: int
    sparsity: float
    fidelity: Fidelity


@dataclass
class CandidateRound:
    """Candidates of one round, all pruned from the same model in the same order of removals.

    Attributes:
        largest: Number of removals that make a whole round; 0 if there is nothing to remove.
        measured: Candidates in the order in which they were measured.
    """

    largest: int
    measured: list[Candidate] = field(default_factory=list)


class SearchFiles:
    """Files from which an interrupted search continues.

    Args:
        folder: Folder of the run, the same in all processes; the first one writes.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def load_rounds(self) -> list[CandidateRound]:
        """Returns the candidates measured so far, by round; in all processes those that the first one sees."""
        path = self.folder / CANDIDATES_FILE
        text = from_first_process(path.read_text(encoding="utf-8", errors="replace") if path.exists() else "[]")
        try:
            return [
                CandidateRound(
                    values["largest"],
                    [
                        Candidate(**(candidate | {"fidelity": Fidelity(**candidate["fidelity"])}))
                        for candidate in values["measured"]
                    ],
                )
                for values in json.loads(text)
            ]
        except (ValueError, TypeError, KeyError) as error:
            logger.warning(f"{path} is damaged ({error!r}). The search begins anew.")
            return []

    def save_rounds(self, rounds: list[CandidateRound]) -> None:
        """Writes the candidates measured so far.

        Args:
            rounds: Candidates by round.
        """
        if rank_and_size()[0] == 0:
            write_text_atomically(self.folder / CANDIDATES_FILE, json.dumps([asdict(entry) for entry in rounds]))

    def save_model(self, number: int, model: PrunableModelMixin, record: PruningRound) -> None:
        """Writes the smallest model of a round that keeps the target so far.

        Args:
            number: Number of the round, from 1.
            model: Model of the candidate.
            record: Record of the round.
        """
        if rank_and_size()[0] == 0:
            save_round(round_path(self.folder, number), model, record)

    def load_model(self, number: int, model: PrunableModelMixin) -> tuple[PrunableModelMixin, PruningRound]:
        """Reads the model that `save_model` wrote last for a round.

        Args:
            number: Number of the round, from 1.
            model: Model before the round.

        Raises:
            DamagedFileError: If the file is not there, or not as it was written.
        """
        return load_round(round_path(self.folder, number), model)
