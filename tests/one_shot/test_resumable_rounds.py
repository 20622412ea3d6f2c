"""Rounds that an interrupted run does not make again."""

import pytest
import torch

from hf_prunable.one_shot import resumable_rounds
from hf_prunable.one_shot.one_shot_pruning import OneShotPruning
from hf_prunable.one_shot.resumable_rounds import ResumableRounds
from hf_prunable.one_shot.round_files import round_path
from tests.helpers.one_shot_models import FAST, make_clips
from tests.helpers.tiny_models import tiny_prunable


PARTS = (0.9, 0.8, 0.7)


def start(folder):
    pruning = OneShotPruning(tiny_prunable("hubert"), make_clips(), config=FAST)
    return ResumableRounds(pruning, folder, len(PARTS)), [part * pruning.size() for part in PARTS]


@pytest.mark.parametrize("num_left", [0, 1, 2, 3])
def test_rounds_go_on_after_the_last_file_without_a_gap(num_left, tmp_path, monkeypatch):
    """To the bit, whatever files follow the gap."""
    whole, sizes = start(tmp_path)
    whole.prune_(sizes[:1])
    whole.prune_(sizes[1:])
    if num_left < 3:
        round_path(tmp_path, num_left + 1).unlink()
    made, make = [], OneShotPruning.round
    monkeypatch.setattr(OneShotPruning, "round", lambda *args, **options: made.append(args) or make(*args, **options))
    again, _ = start(tmp_path)
    assert again.num_finished == num_left
    again.prune_(sizes[:1])
    again.prune_(sizes[1:])
    assert len(made) == 3 - num_left
    assert again.records == whole.records and len(again.records) == 3
    expected = whole.pruning.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.pruning.model.state_dict().items())


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(resumable_rounds, "rank_and_size", lambda: (1, 2))
    rounds, sizes = start(tmp_path / "rounds")
    rounds.prune_(sizes[:1])
    assert not (tmp_path / "rounds").exists() and len(rounds.records) == 1
