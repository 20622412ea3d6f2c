"""The smallest model that keeps a target by fidelity: with one removal more, it misses it. Measured, not predicted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property

from transformers.utils import logging

from ..modeling.pretrained import PrunableModelMixin
from ..modeling.size import UnitCounts
from ..pruning.fidelity import Fidelity
from ..pruning.targets import FidelityTarget
from ..runtime.files import DamagedFileError
from .allocation import RemovalOrder
from .bracket import Bracket
from .calibration import from_first_process, rank_and_size
from .one_shot_pruning import ROUND_FACTOR, OneShotPruning, least_shape
from .round_files import PruningRound
from .search_files import Candidate, CandidateRound, SearchFiles


logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class FoundSize:
    """What a search for the smallest model has found.

    Attributes:
        target: Limit that was asked for.
        met: Value of the model that was found.
        sparsity: Fraction of the original dense encoder that is removed from it.
        one_more: Value with one removal more, which misses the limit; `None` if there was nothing left to remove.
        num_candidates: Number of models that were pruned and measured.
    """

    target: FidelityTarget
    met: float
    sparsity: float
    one_more: float | None
    num_candidates: int

    def describe(self) -> str:
        """Returns what was asked for, met and found, as sentences."""
        text = (
            f"Asked for the smallest model with a {self.target.quantity} of {self.target.limit} on held-out audio: with "
            f"{100 * self.sparsity:.2f} % removed, it is {self.target.value_text(self.met)}, measured."
        )
        if self.one_more is None:
            return f"{text} Nothing is left that the units of the run could remove."
        return f"{text} With one removal more, it is {self.target.value_text(self.one_more)}."


class FidelitySearch:
    """Searches the smallest model that keeps a target by fidelity.

    Rounds are made as long as a whole one keeps the target. The removals of the first round that misses it are then
    narrowed down to two neighbours: the model that is returned, and one that misses the target with one removal more.
    Both are measured. A smaller model can keep the target where the measured values rise and fall with the removals.

    In a distributed run, all processes make the calls, and decide by the values that the first one measured.

    Args:
        pruning: Pruning of the model, at its start.
        target: Limit on held-out audio.
        measure: Function that measures a model on held-out audio; only the first process calls it.
        files: Files to continue from and to write; `None` for none.

    Attributes:
        records: Records of the rounds that the model found has gone through; known after `run`.
        candidates: Measured candidates by round.
    """

    def __init__(
        self,
        pruning: OneShotPruning,
        target: FidelityTarget,
        measure: Callable[[PrunableModelMixin], Fidelity],
        files: SearchFiles | None = None,
    ):
        self.pruning, self.target, self.files = pruning, target, files
        self._measure = measure
        # The model as it is, once `check` has measured it.
        self._start: Candidate | None = None
        self.records: list[PruningRound] = []
        self.candidates: list[CandidateRound] = []

    def measure(self, model: PrunableModelMixin) -> Fidelity:
        """Measures a model; in all processes, returns what the first one has measured.

        Args:
            model: Pruned model.
        """
        values = asdict(self._measure(model)) if rank_and_size()[0] == 0 else {}
        return Fidelity(**from_first_process(values))

    def check(self) -> Candidate:
        """Measures the model as it is, before anything is removed.

        Raises:
            ValueError: If it misses the target.
        """
        pruning, target = self.pruning, self.target
        fidelity = self.measure(pruning.model)
        if not target.is_met(fidelity):
            raise ValueError(
                f"`{target.option}` asks for a {target.quantity} of {target.limit}, but before anything is "
                f"removed the model has {target.value_text(target.value(fidelity))}, measured against its teacher on the "
                "held-out audio. Ask for less fidelity, or give another teacher."
            )
        sparsity = pruning.measure.sparsity(pruning.model.config, pruning.counts(pruning.model))
        self._start = Candidate(0, sparsity, fidelity)
        return self._start

    def run(self) -> FoundSize:
        """Searches from the start, or from where an interrupted search was; `pruning.model` is then the model found.

        Raises:
            ValueError: If the model misses the target before anything is removed.
        """
        best = self.check() if self._start is None else self._start
        if self.files is not None:
            self.candidates = self.files.load_rounds()
        one_more: Candidate | None = None
        number = 0
        while one_more is None:
            number += 1
            search = _RoundSearch(self, number)
            if search.largest == 0:
                break
            best, one_more = search.narrow(best)
            search.accept(best)
        found = FoundSize(
            self.target,
            self.target.value(best.fidelity),
            best.sparsity,
            None if one_more is None else self.target.value(one_more.fidelity),
            sum(len(entry.measured) for entry in self.candidates),
        )
        logger.info(f"{found.describe()} Candidates measured: {found.num_candidates}.")
        return found


class _RoundSearch:
    """The search in one round. Candidates that were measured before an interruption are taken from the files.

    Args:
        search: Search that the round is part of.
        number: Number of the round, from 1.
    """

    def __init__(self, search: FidelitySearch, number: int):
        self.search, self.pruning, self.number = search, search.pruning, number
        config, pruning = self.pruning.model.config, self.pruning
        least = least_shape(config, pruning.units, pruning.stock_shape)
        # Size after a whole round.
        self.max_size = max(pruning.size() * ROUND_FACTOR, pruning.measure.count(config, UnitCounts.of(least)))
        if number > len(search.candidates):
            search.candidates.append(CandidateRound(self.order.removals_to(self.max_size)))
            self._save_candidates()
        self.entry = search.candidates[number - 1]
        # Model and record of the last candidate that keeps the target, unless it was measured before an interruption.
        self._kept: tuple[PrunableModelMixin, PruningRound] | None = None

    @property
    def largest(self) -> int:
        """Number of removals that make a whole round."""
        return self.entry.largest

    @cached_property
    def order(self) -> RemovalOrder:
        """Order of the removals, measured when a new candidate needs it."""
        return self.pruning.order(self.max_size)

    def narrow(self, start: Candidate) -> tuple[Candidate, Candidate | None]:
        """Returns the smallest candidate that keeps the target, and the one with one removal more.

        Args:
            start: Model before the round, which keeps the target.

        Returns:
            Both candidates; `None` as the second if the whole round keeps the target.
        """
        target = self.search.target
        low, high = Candidate(0, start.sparsity, start.fidelity), self.candidate(self.largest)
        if target.is_met(high.fidelity):
            return high, None
        bracket = Bracket(0, self.largest, target.excess(low.fidelity), target.excess(high.fidelity))
        while not bracket.is_closed:
            candidate = self.candidate(bracket.next())
            bracket.add(candidate.num_removals, target.excess(candidate.fidelity))
            if target.is_met(candidate.fidelity):
                low = candidate
            else:
                high = candidate
        return low, high

    def candidate(self, num_removals: int) -> Candidate:
        """Prunes and measures a candidate, unless that was done before an interruption.

        Args:
            num_removals: Number of removals, from 1 to `largest`.
        """
        for candidate in self.entry.measured:
            if candidate.num_removals == num_removals:
                return candidate
        pruning, target = self.pruning, self.search.target
        model = pruning.pruned(self.order.shape_after(num_removals))
        record = PruningRound.after(pruning, model, self.order)
        candidate = Candidate(num_removals, record.sparsity, self.search.measure(model))
        is_met = target.is_met(candidate.fidelity)
        logger.info(
            f"Round {self.number}, candidate {len(self.entry.measured) + 1}: {100 * record.sparsity:.2f} % removed, "
            f"{target.quantity} {target.value_text(target.value(candidate.fidelity))} "
            f"({'kept' if is_met else 'missed'}: {target.limit})."
        )
        if is_met:
            self._kept = model, record
            if self.search.files is not None:
                self.search.files.save_model(self.number, model, record)
        self.entry.measured.append(candidate)
        self._save_candidates()
        return candidate

    def accept(self, candidate: Candidate) -> None:
        """Makes a candidate of this round the model of the pruning.

        Args:
            candidate: Last candidate that keeps the target, or the model before the round.
        """
        if candidate.num_removals == 0:
            return
        if self._kept is None:
            self._kept = self._saved(candidate)
        self.pruning.model, record = self._kept
        self.search.records.append(record)

    def _saved(self, candidate: Candidate) -> tuple[PrunableModelMixin, PruningRound]:
        """Returns model and record of a candidate that was measured before an interruption."""
        assert self.search.files is not None
        try:
            return self.search.files.load_model(self.number, self.pruning.model)
        except (DamagedFileError, FileNotFoundError) as error:
            logger.warning(f"{error}. Its model is pruned again.")
        model = self.pruning.pruned(self.order.shape_after(candidate.num_removals))
        return model, PruningRound.after(self.pruning, model, self.order)

    def _save_candidates(self) -> None:
        if self.search.files is not None:
            self.search.files.save_rounds(self.search.candidates)
