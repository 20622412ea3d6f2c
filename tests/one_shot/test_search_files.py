"""Files of a search: what is written comes back, and models of candidates that miss the target are not written."""

import math

from hf_prunable.one_shot.search_files import CANDIDATES_FILE, Candidate, CandidateRound, SearchFiles
from hf_prunable.pruning.fidelity import Fidelity
from hf_prunable.pruning.targets import FidelityTarget
from tests.one_shot.test_fidelity_search import start


def test_candidates_come_back_to_the_bit(tmp_path):
    fidelity = Fidelity([1 / 3, 0.1 + 0.2], [1e-300, 2 / 7], math.pi, 17)
    rounds = [CandidateRound(40, [Candidate(40, 0.1, fidelity)]), CandidateRound(7)]
    files = SearchFiles(tmp_path)
    assert files.load_rounds() == []
    files.save_rounds(rounds)
    assert SearchFiles(tmp_path).load_rounds() == rounds
    files.save_rounds([CandidateRound(1, [Candidate(1, 0.1, Fidelity([1.0], [0.0], math.nan, 1))])])
    (candidate,) = files.load_rounds()[0].measured
    assert math.isnan(candidate.fidelity.distillation_loss)
    assert [path.name for path in tmp_path.iterdir()] == [CANDIDATES_FILE]


def test_only_models_that_keep_the_target_are_written(tmp_path):
    search, _ = start(FidelityTarget(0.02), files=SearchFiles(tmp_path))
    search.run()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {CANDIDATES_FILE} | {f"round_{number + 1}.safetensors" for number in range(len(search.records))}
