"""Parameters, multiply-accumulates (MACs), latency and real-time factor of models, side by side."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

from ..modeling.configuration import PrunableConfigMixin
from ..modeling.size import MAC_SECONDS, SAMPLING_RATE, UnitCounts, count_macs, count_parameters
from ..runtime.evaluation_mode import evaluation_mode


CPU_INFO = Path("/proc/cpuinfo")
# The first runs of a model pay for memory and for the choice of kernels.
WARM_UP_RUNS = 2
INPUT_SEED = 0


def describe_machine(device: torch.device | str | None = None, num_threads: int | None = None) -> str:
    """The hardware that figures were measured on, without the machine's name.

    Args:
        device: What the models ran on; `None` takes the first GPU where there is one, and else the CPU.
        num_threads: CPU threads they ran on, where it was not the number torch uses now.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu") if device is None else torch.device(device)
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    elif device.type == "cpu":
        threads = num_threads or torch.get_num_threads()
        hardware = f"{_cpu_name()}, {threads} thread{'' if threads == 1 else 's'}"
    else:
        hardware = f"{_cpu_name()}, {device.type} device"
    return f"{hardware}, torch {torch.__version__}"


def _cpu_name() -> str:
    if CPU_INFO.is_file():
        for line in CPU_INFO.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return " ".join(value.split())
    return platform.processor() or platform.machine() or "unknown CPU"


@dataclass
class ModelSize:
    """The size of an encoder, without a head.

    Attributes:
        num_parameters: All of them, the mask embedding included.
        macs: Multiply-accumulates of one forward pass over one clip.
        mac_seconds: The clip's length.
    """

    num_parameters: int
    macs: int
    mac_seconds: float


def measure_size(model: PreTrainedModel, seconds: float = MAC_SECONDS) -> ModelSize:
    """Counts the encoder of a prunable base or head model in closed form, and holds the count against its tensors.

    Args:
        model: Without gates.
        seconds: The length of the clip that MACs are counted for.

    Raises:
        TypeError: If the model is not a prunable one.
        ValueError: If the model has gates, or the clip is too short for one frame.
        RuntimeError: If the closed form and the model's tensors disagree.
    """
    config = model.config
    if not isinstance(config, PrunableConfigMixin):
        raise TypeError(
            f"{type(model).__name__} has no shape to count. Load the checkpoint with `hf_prunable.load_prunable`."
        )
    if config.gates is not None:
        raise ValueError("A model with gates has no final size. Measure the one that `compact(model)` returns.")
    counts = UnitCounts.of(config.shape)
    num_parameters, found = count_parameters(config, counts), model.base_model.num_parameters()
    if num_parameters != found:
        raise RuntimeError(
            f"The shape of {type(model).__name__} stands for {num_parameters:,} parameters, but its encoder has "
            f"{found:,}. If no parameter was added or removed by hand, this is a bug in hf_prunable."
        )
    return ModelSize(num_parameters, count_macs(config, counts, seconds), seconds)


@dataclass
class Latency:
    """How long one forward pass takes.

    Attributes:
        median_seconds: Over the repetitions.
        min_seconds: Of the fastest.
        max_seconds: Of the slowest.
        real_time_factor: Median over the seconds of audio in the batch; below 1 is faster than the audio plays.
        speedup: How many times faster than the first model of the comparison: the median, over the rounds in which
            all models ran once each, of the ratio of their times.
    """

    median_seconds: float
    min_seconds: float
    max_seconds: float
    real_time_factor: float
    speedup: float


def measure_latency(
    models: dict[str, nn.Module],
    *,
    seconds: float = 10.0,
    batch_size: int = 1,
    repetitions: int = 7,
    num_threads: int | None = None,
) -> dict[str, Latency]:
    """Times models in turn on the same random audio, so that what slows the machine down slows all of them.

    Args:
        models: By the names that the result has too; all on one device. The first one is what speed is compared with.
        seconds: Length of each clip.
        batch_size: Clips in a batch.
        repetitions: Rounds that are timed, after a warm-up that is not.
        num_threads: CPU threads of torch; `None` leaves them as they are.

    Raises:
        ValueError: If there is no model, the models are on different devices, or a number is not positive.
    """
    _check_positive(batch_size=batch_size)
    rounds = time_in_turn(models, [seconds] * batch_size, repetitions=repetitions, num_threads=num_threads)
    first = next(iter(models))
    latencies = {}
    for name in models:
        times = [of_round[name] for of_round in rounds]
        median = statistics.median(times)
        speedup = statistics.median(of_round[first] / of_round[name] for of_round in rounds)
        latencies[name] = Latency(median, min(times), max(times), median / (seconds * batch_size), speedup)
    return latencies


def time_in_turn(
    models: dict[str, nn.Module],
    seconds: Sequence[float],
    *,
    repetitions: int = 7,
    num_threads: int | None = None,
) -> list[dict[str, float]]:
    """Times forward passes of models in turn on the same random audio.

    Args:
        models: By the names that the result has too; all on one device.
        seconds: Length of each clip of the batch. Where lengths differ, clips are padded to the longest, and the models
            are given an attention mask.
        repetitions: Rounds that are timed, after a warm-up that is not.
        num_threads: CPU threads of torch; `None` leaves them as they are.

    Returns:
        For each round, the seconds that every model took.

    Raises:
        ValueError: If there is no model, the models are on different devices, or a number is not positive.
    """
    _check_positive(seconds=min(seconds, default=0), repetitions=repetitions, num_threads=num_threads)
    if not models:
        raise ValueError("Latency needs at least one model, but got none.")
    inputs = _random_audio(models, [round(length * SAMPLING_RATE) for length in seconds])
    num_rounds = WARM_UP_RUNS + repetitions
    with (
        evaluation_mode(list(models.values()), num_threads),
        logging.tqdm(total=num_rounds * len(models), desc="Timing", unit="run", leave=False) as progress,
    ):
        rounds: list[dict[str, float]] = []
        for _ in range(num_rounds):
            rounds.append({})
            for name, model in models.items():
                rounds[-1][name] = _time_forward(model, **inputs[name])
                progress.update()
    return rounds[WARM_UP_RUNS:]


def _check_positive(**numbers: float | None) -> None:
    wrong = {name: number for name, number in numbers.items() if number is not None and number <= 0}
    if wrong:
        raise ValueError(f"Latency needs positive numbers, but got {wrong}.")


def _random_audio(models: dict[str, nn.Module], num_samples: Sequence[int]) -> dict[str, dict[str, torch.Tensor]]:
    """The same noise for every model, on its device and in its dtype, with a mask where clips differ in length."""
    longest = max(num_samples)
    audio = torch.randn(len(num_samples), longest, generator=torch.Generator().manual_seed(INPUT_SEED))
    # What has no parameters runs outside torch and takes what the CPU has.
    parameters = {name: next(model.parameters(), audio) for name, model in models.items()}
    devices = {name: str(parameter.device) for name, parameter in parameters.items()}
    if len(set(devices.values())) > 1:
        raise ValueError(f"Models can be compared on one device only, but are on {devices}. Move them with `.to()`.")
    mask = {}
    if min(num_samples) < longest:
        is_audio = torch.arange(longest) < torch.tensor(num_samples)[:, None]
        audio, mask = audio * is_audio, {"attention_mask": is_audio.long()}
    return {
        name: {"audio": audio.to(parameter)} | {key: value.to(parameter.device) for key, value in mask.items()}
        for name, parameter in parameters.items()
    }


def _time_forward(model: nn.Module, audio: torch.Tensor, **mask: torch.Tensor) -> float:
    wait_for(audio.device)
    start = time.perf_counter()
    model(audio, **mask)
    wait_for(audio.device)
    return time.perf_counter() - start


def wait_for(device: torch.device) -> None:
    """Waits until the device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
