"""The training clock counts steps, not evaluation and saving between them."""

import pytest
from transformers import TrainerCallback

from hf_prunable.finetuning import training_clock
from hf_prunable.finetuning.training_clock import TrainingClock
from tests.helpers.clock import Clock


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(training_clock, "time", clock)
    return clock


def test_clock_leaves_out_what_is_between_steps_and_counts_on(clock):
    training = TrainingClock()
    assert isinstance(training, TrainerCallback)
    training.on_epoch_begin()
    for event, seconds in (
        ("on_step_end", 3),
        ("on_evaluate", 50),
        ("on_save", 7),
        ("on_step_end", 2),
        ("on_save", 9),
        ("on_epoch_begin", 20),
        ("on_step_end", 1),
    ):
        clock.now += seconds
        getattr(training, event)(None, None, None)
    assert training.seconds == 6
    # The Trainer restores a callback from a checkpoint in this way.
    resumed = TrainingClock(**training.state()["args"])
    resumed.on_epoch_begin()
    clock.now += 4
    resumed.on_step_end()
    assert resumed.seconds == 10
