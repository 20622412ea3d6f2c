"""The speed and the time of training, on a clock that the test turns."""

import pytest
import torch
from transformers import TrainingArguments

from hf_prunable.pruning import throughput
from hf_prunable.pruning.throughput import Throughput
from tests.helpers.clock import Clock


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    return clock


def test_speed_between_two_log_entries(clock, tmp_path):
    counted = Throughput(TrainingArguments(str(tmp_path), use_cpu=True), sampling_rate=16000)
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


def test_a_pause_takes_no_time(clock, tmp_path):
    counted = Throughput(TrainingArguments(str(tmp_path), use_cpu=True), sampling_rate=16000)
    clock.now += 4
    counted.read(10)
    counted.add(torch.zeros(2, 16000))
    clock.now += 1
    with pytest.raises(KeyError), counted.paused():
        clock.now += 5
        raise KeyError
    clock.now += 3
    found = counted.read(12)
    assert (found["audio_seconds_per_second"], found["steps_per_second"]) == (0.5, 0.5)
