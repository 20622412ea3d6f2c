"""Files of a search: what is written comes back, and models of candidates that miss the target are not written."""

import json
import math

import pytest
import torch

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


@pytest.mark.parametrize("content", ["", "[", "{}", "[3]", '[{"largest": 3}]', '[{"largest": 3, "measured": [{}]}]'])
def test_candidates_that_cannot_be_read_are_measured_again(tmp_path, caplog, content):
    (tmp_path / CANDIDATES_FILE).write_text(content)
    assert SearchFiles(tmp_path).load_rounds() == []
    assert (content == "{}") or "candidates.json is damaged" in caplog.text


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_model_that_cannot_be_read_is_pruned_again(tmp_path, caplog, how):
    first, _ = start(FidelityTarget(0.02), files=SearchFiles(tmp_path))
    first.run()
    assert json.loads((tmp_path / CANDIDATES_FILE).read_text())
    path = tmp_path / f"round_{len(first.records)}.safetensors"
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9])
    again, _ = start(FidelityTarget(0.02), files=SearchFiles(tmp_path))
    again.run()
    assert "Its model is pruned again." in caplog.text and again.records == first.records
    expected = first.pruning.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.pruning.model.state_dict().items())
