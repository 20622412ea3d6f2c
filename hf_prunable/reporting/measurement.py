"""Parameters, multiply-accumulates (MACs), latency and real-time factor of models."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

from ..modeling.configuration import PrunableConfigMixin
from ..modeling.pretrained import PrunableModelMixin
from ..modeling.size import MAC_SECONDS, SAMPLING_RATE, UnitCounts, count_macs, count_parameters
from ..runtime.evaluation_mode import evaluation_mode


CPU_INFO = Path("/proc/cpuinfo")
# The first forward passes also allocate memory and select kernels.
WARM_UP_RUNS = 2
INPUT_SEED = 0


def describe_machine(device: torch.device | str | None = None, num_threads: int | None = None) -> str:
    """Describes the hardware and the torch version of a measurement, without the host name.

    Args:
        device: Device of the measured models; `None` selects the first GPU, or the CPU without one.
        num_threads: Number of CPU threads of the measurement; `None` takes torch's current number.
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
    """Size of an encoder, without a head.

    Attributes:
        num_parameters: Number of parameters, including the mask embedding.
        macs: Multiply-accumulates of one forward pass on one clip.
        mac_seconds: Length of that clip in seconds.
    """

    num_parameters: int
    macs: int
    mac_seconds: float


def measure_size(model: PreTrainedModel, seconds: float = MAC_SECONDS) -> ModelSize:
    """Counts the encoder of a prunable model in closed form and checks the count against its tensors.

    Args:
        model: Prunable base model or model with a head, without gates.
        seconds: Length in seconds of the clip that MACs are counted for.

    Raises:
        TypeError: If the model is not prunable.
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
    num_parameters, found = count_parameters(config, counts), _count_tensors(model.base_model)
    if num_parameters != found:
        raise RuntimeError(
            f"The shape of {type(model).__name__} stands for {num_parameters:,} parameters, but its encoder has "
            f"{found:,}. If no parameters were added or removed by hand, this is a bug in hf_prunable."
        )
    return ModelSize(num_parameters, count_macs(config, counts, seconds), seconds)


def measure_dense(model: PrunableModelMixin, seconds: float = MAC_SECONDS) -> ModelSize:
    """Counts the original dense encoder of a prunable model in closed form.

    Args:
        model: Prunable base model or model with a head, dense or pruned.
        seconds: Length in seconds of the clip that MACs are counted for.
    """
    config = model.config
    return ModelSize(config.dense_num_parameters, count_macs(config, config.dense_counts, seconds), seconds)


def _count_tensors(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def as_loaded(model: PrunableModelMixin) -> PreTrainedModel:
    """Returns the model in the class that its saved checkpoint loads as: the stock class where it can express it."""
    return model.to_stock() if model.is_stock else model


@dataclass
class Latency:
    """Time of one forward pass.

    Attributes:
        median_seconds: Median over the timed rounds.
        min_seconds: Fastest round.
        max_seconds: Slowest round.
        real_time_factor: Median divided by the length of the audio in the batch; below 1 is faster than real time.
        speedup: Median over rounds of the first model's time divided by this model's time in the same round.
        clip_seconds: Length of each clip in seconds.
        batch_size: Number of clips in the batch.
    """

    median_seconds: float
    min_seconds: float
    max_seconds: float
    real_time_factor: float
    speedup: float
    clip_seconds: float
    batch_size: int = 1

    @property
    def audio_text(self) -> str:
        """Audio of the forward pass, in words."""
        clips = "one clip" if self.batch_size == 1 else f"{self.batch_size} clips"
        return f"{clips} of {self.clip_seconds:g} s"


def measure_latency(
    models: Mapping[str, nn.Module],
    *,
    seconds: float = 10.0,
    batch_size: int = 1,
    repetitions: int = 7,
    num_threads: int | None = None,
    sampling_rate: int = SAMPLING_RATE,
) -> dict[str, Latency]:
    """Times models in alternation on the same random audio, so that varying machine load affects all of them.

    Args:
        models: Models by name, all on one device; speed-ups are relative to the first one.
        seconds: Length of each clip in seconds.
        batch_size: Number of clips in the batch.
        repetitions: Number of timed rounds, after untimed warm-up rounds.
        num_threads: Number of CPU threads of torch; `None` leaves it unchanged.
        sampling_rate: Sampling rate of the audio in Hz.

    Returns:
        Latencies by the models' names.

    Raises:
        ValueError: If there is no model, the models are on different devices, or a number is not positive.
    """
    _check_positive(batch_size=batch_size)
    rounds = time_in_turn(
        models,
        [seconds] * batch_size,
        repetitions=repetitions,
        num_threads=num_threads,
        sampling_rate=sampling_rate,
    )
    first = next(iter(models))
    latencies = {}
    for name in models:
        times = [round_times[name] for round_times in rounds]
        median = statistics.median(times)
        latencies[name] = Latency(
            median_seconds=median,
            min_seconds=min(times),
            max_seconds=max(times),
            real_time_factor=median / (seconds * batch_size),
            speedup=statistics.median(round_times[first] / round_times[name] for round_times in rounds),
            clip_seconds=seconds,
            batch_size=batch_size,
        )
    return latencies


def time_in_turn(
    models: Mapping[str, nn.Module],
    seconds: Sequence[float],
    *,
    repetitions: int = 7,
    num_threads: int | None = None,
    sampling_rate: int = SAMPLING_RATE,
) -> list[dict[str, float]]:
    """Times forward passes of models in alternation on the same random audio.

    Args:
        models: Models by name, all on one device.
        seconds: Length of each clip of the batch in seconds. If the lengths differ, clips are padded to the longest and
            the models get an attention mask.
        repetitions: Number of timed rounds, after untimed warm-up rounds.
        num_threads: Number of CPU threads of torch; `None` leaves it unchanged.
        sampling_rate: Sampling rate of the audio in Hz.

    Returns:
        Seconds per forward pass by the models' names, one dictionary per round.

    Raises:
        ValueError: If there is no model, the models are on different devices, or a number is not positive.
    """
    _check_positive(seconds=min(seconds, default=0), repetitions=repetitions, num_threads=num_threads)
    if not models:
        raise ValueError("Latency needs at least one model, but got none.")
    inputs = _random_audio(models, [round(length * sampling_rate) for length in seconds])
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


def _random_audio(models: Mapping[str, nn.Module], num_samples: Sequence[int]) -> dict[str, dict[str, torch.Tensor]]:
    """Draws the same noise for every model, on its device and in its dtype; with a mask if the lengths differ."""
    longest = max(num_samples)
    audio = torch.randn(len(num_samples), longest, generator=torch.Generator().manual_seed(INPUT_SEED))
    # A model without parameters, such as an ONNX session, takes CPU tensors.
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
    """Blocks until all kernels queued on the device have finished."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
