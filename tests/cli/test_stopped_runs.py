"""Real runs that are stopped from outside or meet a second one: one line, and the same command goes on."""

import os
import resource
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from tests.cli.test_run_identity import write_audio
from tests.cli.test_run_prune import SCRIPT, save_checkpoint
from tests.helpers.processes import with_root
from tests.helpers.tiny_models import tiny_stock


CHECKPOINT = "out.partial/stage_1/checkpoint-{}/trainer_state.json"
OPTIONS = (
    "--method gates --target_sparsity 0.4 --gate_learning_rate 0.3 --crop_seconds 0.05 --min_seconds 0.05 "
    "--held_out_fraction 0.3 --latency_seconds 0.2 --use_cpu --disable_tqdm --final_steps 2 --save_steps 20 "
    "--per_device_train_batch_size 2"
).split()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("stopped")
    save_checkpoint(place / "dense", tiny_stock("wavlm"))
    write_audio(place / "audio", seed=0)
    return place


def start(place, folder, max_steps, preexec=lambda: None):
    """Starts a run that does not inherit ignored signals, such as those of a job in the background or under nohup."""
    sources = ["--model_name_or_path", place / "dense", "--dataset_name", place / "audio"]
    command = [sys.executable, SCRIPT, *sources, "--output_dir", "out", "--max_steps", max_steps, *OPTIONS]

    def prepare():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        preexec()

    return subprocess.Popen(
        [str(part) for part in command],
        cwd=folder,
        env={**with_root(), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
    )


def wait_for(process, path):
    deadline = time.monotonic() + 500
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1][-3000:]
        time.sleep(0.02)


def end(process):
    errors = process.communicate(timeout=500)[1]
    return process.returncode, errors.strip().splitlines()[-1], errors


@pytest.mark.parametrize("name, status", [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal(place, tmp_path, name, status):
    run = start(place, tmp_path, 4000)
    wait_for(run, tmp_path / CHECKPOINT.format(20))
    run.send_signal(signal.Signals[name])
    code, line, errors = end(run)
    assert code == status and "Traceback" not in errors
    assert line == (
        f"hf-prunable prune: stopped by {name}. What was finished is kept in {tmp_path / 'out.partial'}, and the same command "
        "goes on from there."
    )


@pytest.mark.slow
def test_two_runs_at_a_time_and_one_after_a_stop(place, tmp_path):
    (tmp_path / "other").mkdir()
    whole = start(place, tmp_path / "other", 60)
    assert end(whole)[0] == 0
    first = start(place, tmp_path, 60)
    wait_for(first, tmp_path / CHECKPOINT.format(20))
    first.send_signal(signal.SIGSTOP)
    code, line, _ = end(start(place, tmp_path, 60))
    assert code == 2 and f"out' is being made by process {first.pid} on " in line
    first.send_signal(signal.SIGCONT)
    first.send_signal(signal.SIGTERM)
    assert end(first)[0] in (143, 0)
    if not (tmp_path / "out").exists():
        assert end(start(place, tmp_path, 60))[0] == 0
    weights, expected = (load_file(path / "out" / "model.safetensors") for path in (tmp_path, tmp_path / "other"))
    assert weights.keys() == expected.keys() and all(weights[name].equal(expected[name]) for name in weights)
    assert sorted(os.listdir(tmp_path)) == ["other", "out"]


@pytest.mark.slow
def test_files_that_cannot_be_written(place, tmp_path):
    limit = 40_000
    run = start(place, tmp_path, 20, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    code, line, errors = end(run)
    assert code == 2 and "Traceback" not in errors
    assert "error: A file could not be written, as on a full disk: " in line and "the same command goes on" in line
    assert end(start(place, tmp_path, 20))[0] == 0
    assert os.listdir(tmp_path) == ["out"]
