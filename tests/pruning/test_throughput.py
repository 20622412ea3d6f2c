"""The speed and the time of training, on a clock that the test turns."""

import pytest
import torch
from transformers import TrainerCallback, TrainingArguments

from hf_prunable.pruning import throughput
from hf_prunable.pruning.throughput import Throughput, TrainingClock


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def perf_counter(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    return clock


def test_speed_between_two_log_entries(clock, tmp_path):
    counted = Throughput(TrainingArguments(str(tmp_path), use_cpu=True))
    counted.add(torch.zeros(2, 16000))
    clock.now += 4
    first = counted.read(10)
    assert (
        first["audio_seconds_per_second"] == 0.5 and first["peak_memory_gib"] > 0 and "steps_per_second" not in first
    )
    counted.add(torch.zeros(4, 8000))
    clock.now += 2
    second = counted.read(15)
    assert (second["audio_seconds_per_second"], second["steps_per_second"]) == (1.0, 2.5)


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
    # As the Trainer makes it again from a checkpoint.
    resumed = TrainingClock(**training.state()["args"])
    resumed.on_epoch_begin()
    clock.now += 4
    resumed.on_step_end()
    assert resumed.seconds == 10
