"""Sizes against the models' tensors; latency against models whose speed is known."""

import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from hf_prunable import AttentionShape, LayerShape, PrunedShape, compact
from hf_prunable.reporting import measurement
from hf_prunable.reporting.measurement import as_loaded, describe_machine, measure_latency, measure_size, time_in_turn
from tests.helpers.tiny_models import tiny_prunable, tiny_stock


class Sleeper(nn.Module):
    """Takes a known time, and records how it is called."""

    def __init__(self, seconds, log=None, name=None, fails=False):
        super().__init__()
        self.linear = nn.Linear(1, 1)
        self.child = nn.Dropout()
        self.masks = []
        self.seconds, self.log, self.name, self.fails = seconds, log if log is not None else [], name, fails

    def forward(self, audio, attention_mask=None):
        self.masks.append(attention_mask)
        modes = (self.training, self.child.training, torch.is_inference_mode_enabled(), torch.get_num_threads())
        self.log.append((self.name, audio, modes))
        time.sleep(self.seconds)
        if self.fails:
            raise RuntimeError("broken")


def test_size_of_dense_pruned_and_head_models():
    dense = tiny_prunable("wavlm")
    shape = PrunedShape(
        (5, 16, 20),
        (
            LayerShape(AttentionShape((1, 3), (0, 4), (6, 2)), 7),
            LayerShape(None, 0),
            LayerShape(AttentionShape((), (), ()), None),
        ),
    )
    pruned = tiny_prunable("wavlm", pruned_shape=shape.to_dict())
    for model in (dense, pruned):
        assert measure_size(model).num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert measure_size(dense).mac_seconds == 10.0
    assert measure_size(pruned).macs < measure_size(dense).macs
    # Attention grows with the square of the clip.
    assert measure_size(dense, 2.0).macs > 2 * measure_size(dense, 1.0).macs
    with_head = tiny_prunable("wavlm", head="ctc", pruned_shape=shape.to_dict())
    assert measure_size(with_head) == measure_size(pruned)
    assert measure_size(with_head).num_parameters < with_head.num_parameters()


def test_size_is_refused_where_it_would_be_wrong():
    model = tiny_prunable("hubert")
    model.encoder.layers[1].extra = nn.Linear(3, 5)
    with pytest.raises(RuntimeError, match=r"stands for [\d,]+ parameters, but its encoder has [\d,]+"):
        measure_size(model)
    with pytest.raises(TypeError, match="load_prunable"):
        measure_size(tiny_stock("hubert"))
    gated = tiny_prunable("hubert")
    gated.attach_gates()
    with pytest.raises(ValueError, match="no final size"):
        measure_size(gated)
    assert measure_size(compact(gated)) == measure_size(tiny_prunable("hubert"))
    with pytest.raises(ValueError, match="too short"):
        measure_size(tiny_prunable("hubert"), seconds=0.0001)


def test_a_model_is_measured_as_its_checkpoint_loads():
    dense = tiny_prunable("wavlm")
    assert type(as_loaded(dense)).__name__ == "WavLMModel"
    shape = PrunedShape.dense(dense.config)
    # What a stock class can express is saved as a stock checkpoint, even if it is narrower.
    narrow = tiny_prunable("wavlm", pruned_shape=PrunedShape((5, 16, 20), shape.layers).to_dict())
    assert type(as_loaded(narrow)).__name__ == "WavLMModel"
    layers = (replace(shape.layers[0], intermediate=7), *shape.layers[1:])
    ragged = tiny_prunable("wavlm", pruned_shape=PrunedShape((12, 16, 20), layers).to_dict())
    assert as_loaded(ragged) is ragged


def test_latency_of_models_of_known_speed():
    slow, fast = Sleeper(0.05), Sleeper(0.005)
    latencies = measure_latency({"slow": slow, "fast": fast}, seconds=0.5, batch_size=2, repetitions=5)
    assert list(latencies) == ["slow", "fast"]
    for name, seconds in (("slow", 0.05), ("fast", 0.005)):
        latency = latencies[name]
        assert seconds <= latency.min_seconds <= latency.median_seconds <= latency.max_seconds
        # One second of audio in the batch.
        assert latency.real_time_factor == latency.median_seconds
        assert (latency.clip_seconds, latency.batch_size) == (0.5, 2)
    assert latencies["slow"].speedup == 1.0
    # Nominally 10, and less where sleep is coarse or the machine busy.
    assert latencies["fast"].speedup > 1.5


def test_median_and_speedup_are_taken_over_rounds(monkeypatch):
    # A machine that is ten times slower in the second round, and a fluke in the third.
    times = iter([9.0] * 4 + [2.0, 1.0, 20.0, 10.0, 2.0, 4.0])
    monkeypatch.setattr(measurement, "_time_forward", lambda model, audio: next(times))
    latencies = measure_latency({"a": Sleeper(0), "b": Sleeper(0)}, seconds=4.0, repetitions=3)
    assert (latencies["a"].median_seconds, latencies["a"].min_seconds, latencies["a"].max_seconds) == (2.0, 2.0, 20.0)
    assert (latencies["b"].median_seconds, latencies["b"].min_seconds, latencies["b"].max_seconds) == (4.0, 1.0, 10.0)
    assert latencies["b"].speedup == 2.0
    assert latencies["b"].real_time_factor == 1.0


def test_runs_alternate_on_equal_audio_in_evaluation_mode():
    log = []
    models = {name: Sleeper(0, log, name) for name in "ab"}
    models["b"].to(torch.bfloat16)
    measure_latency(models, seconds=0.01, batch_size=3, repetitions=2)
    assert [name for name, _, _ in log] == list("ab") * (measurement.WARM_UP_RUNS + 2)
    assert all(modes[:3] == (False, False, True) for _, _, modes in log)
    a, b = log[0][1], log[1][1]
    assert a.shape == (3, 160) and a.std() > 0.5 and b.dtype == torch.bfloat16
    assert torch.equal(a.to(torch.bfloat16), b)
    measure_latency({"a": models["a"]}, seconds=0.01, batch_size=3, repetitions=1)
    assert torch.equal(log[-1][1], a)
    measure_latency({"a": models["a"]}, seconds=0.01, repetitions=1, sampling_rate=8000)
    assert log[-1][1].shape == (1, 80)


def test_clips_of_different_lengths_are_padded_and_masked():
    log = []
    model = Sleeper(0.001, log)
    rounds = time_in_turn({"a": model}, [0.02, 0.01], repetitions=2)
    assert len(rounds) == 2 and all(list(seconds) == ["a"] and seconds["a"] >= 0.001 for seconds in rounds)
    audio, mask = log[-1][1], model.masks[-1]
    assert mask.tolist() == [[1] * 320, [1] * 160 + [0] * 160]
    assert audio.shape == (2, 320) and audio[1, :160].all() and not audio[1, 160:].any()
    time_in_turn({"a": model}, [0.02, 0.02], repetitions=1)
    assert model.masks[-1] is None
    with pytest.raises(ValueError, match="seconds"):
        time_in_turn({"a": model}, [])


@pytest.mark.parametrize("fails", [False, True])
def test_modes_threads_and_random_state_are_restored(fails):
    log = []
    model = Sleeper(0, log, fails=fails)
    model.train()
    model.linear.eval()
    threads, random_state = torch.get_num_threads(), torch.get_rng_state()
    if fails:
        with pytest.raises(RuntimeError, match="broken"):
            measure_latency({"a": model}, seconds=0.01, num_threads=threads + 1)
    else:
        measure_latency({"a": model}, seconds=0.01, num_threads=threads + 1)
    assert log[0][2][3] == threads + 1 and torch.get_num_threads() == threads
    assert (model.training, model.linear.training, model.child.training) == (True, False, True)
    assert torch.equal(torch.get_rng_state(), random_state) and not torch.is_inference_mode_enabled()


def test_what_cannot_be_timed_is_refused():
    model = Sleeper(0)
    for options in ({"seconds": 0}, {"batch_size": 0}, {"repetitions": -1}, {"num_threads": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            measure_latency({"a": model}, **options)
    with pytest.raises(ValueError, match="at least one model"):
        measure_latency({})
    with pytest.raises(ValueError, match="one device only.*'b': 'meta'"):
        measure_latency({"a": model, "b": Sleeper(0).to("meta")})


def test_real_models_run():
    models = {"dense": tiny_prunable("wavlm"), "stock": tiny_stock("wav2vec2", "pre")}
    assert measure_latency(models, seconds=0.1, repetitions=1)["stock"].median_seconds > 0


def test_machine_names_hardware_but_no_host(monkeypatch, tmp_path):
    name = describe_machine("cpu")
    assert name.endswith(f"1 thread, torch {torch.__version__}")
    assert "4 threads" in describe_machine("cpu", num_threads=4)
    cpu_info = tmp_path / "cpuinfo"
    cpu_info.write_text("processor\t: 0\nmodel name\t: Big  CPU (R) @ 3 GHz\nmodel name\t: Big CPU 2\n")
    monkeypatch.setattr(measurement, "CPU_INFO", cpu_info)
    assert describe_machine("cpu").startswith("Big CPU (R) @ 3 GHz, 1 thread")
    cpu_info.write_text("Features: fp asimd\n")
    assert len(describe_machine("cpu").split(", ")[0]) > 0
    assert describe_machine("cpu").count(", ") == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_waited_for_and_named():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(8192, 8192, device="cuda"))

        def forward(self, audio):
            for _ in range(20):
                self.weight @ self.weight

    # 22 TFLOP, which are queued in well under a millisecond.
    assert measure_latency({"a": Product()}, seconds=0.1)["a"].min_seconds > 0.01
    assert torch.cuda.get_device_name() in describe_machine()
