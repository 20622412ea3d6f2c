"""Rounds that an interrupted run does not make again."""

import os

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


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


BREAKS = {"missing": lambda path: path.unlink(), "cut": lambda path: os.truncate(path, 1000), "flipped": flip}


@pytest.mark.parametrize(
    "num_left, how", [(0, "missing"), (1, "missing"), (2, "missing"), (3, None), (1, "cut"), (2, "flipped")]
)
def test_rounds_go_on_after_the_last_file_without_a_gap(num_left, how, tmp_path, monkeypatch):
    """To the bit, whatever files follow the gap."""
    whole, sizes = start(tmp_path)
    whole.prune_(sizes[:1])
    whole.prune_(sizes[1:])
    if how is not None:
        BREAKS[how](round_path(tmp_path, num_left + 1))
    made, make = [], OneShotPruning.round
    monkeypatch.setattr(OneShotPruning, "round", lambda *args, **options: made.append(args) or make(*args, **options))
    again, _ = start(tmp_path)
    again.prune_(sizes[:1])
    again.prune_(sizes[1:])
    assert again.num_finished == num_left
    assert len(made) == 3 - num_left
    assert again.records == whole.records and len(again.records) == 3
    expected = whole.pruning.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.pruning.model.state_dict().items())


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(resumable_rounds, "rank_and_size", lambda: (1, 2))
    rounds, sizes = start(tmp_path / "rounds")
    rounds.prune_(sizes[:1])
    assert not (tmp_path / "rounds").exists() and len(rounds.records) == 1
