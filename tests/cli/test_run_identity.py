"""An interrupted run goes on only with what it has read before; it says in words what is different."""

import shutil

import numpy as np
import pytest

from hf_prunable.cli import prune as prune_command
from hf_prunable.data.arguments import SpeechArguments
from hf_prunable.pruning.arguments import PruningArguments, PruningTrainingArguments
from hf_prunable.pruning.objective_arguments import ObjectiveArguments
from hf_prunable.reporting.reload import Reload
from tests.cli.test_run_prune import save_checkpoint
from tests.helpers.speech_files import RATE, write
from tests.helpers.tiny_models import tiny_stock


class Interrupted(Exception):
    pass


def write_audio(folder, seed, count=6):
    noise = 0.1 * np.random.default_rng(seed).standard_normal((count, RATE // 10))
    for number, samples in enumerate(noise):
        write(folder / f"{number}.wav", samples)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Prunes by magnitude, from a folder of its own; with `is_interrupted`, until the result is to be checked."""
    save_checkpoint(tmp_path / "model", tiny_stock("wavlm"))
    save_checkpoint(tmp_path / "teacher", tiny_stock("wavlm", seed=1))
    write_audio(tmp_path / "audio", seed=0)

    def prune(is_interrupted=False, override=False):
        def verify_reload(*arguments, **options):
            if is_interrupted:
                raise Interrupted
            return Reload()

        monkeypatch.setattr("hf_prunable.reporting.publication.verify_reload", verify_reload)
        folder = tmp_path / "out"
        training = {"final_steps": 0, "use_cpu": True, "disable_tqdm": True}
        return prune_command.prune(
            PruningArguments(
                model_name_or_path=str(tmp_path / "model"),
                teacher_name_or_path=str(tmp_path / "teacher"),
                method="magnitude",
                target_sparsity=[0.4],
                latency_seconds=0.1,
                override=override,
            ),
            SpeechArguments(dataset_name=str(tmp_path / "audio"), min_seconds=0.05, held_out_fraction=0.3),
            ObjectiveArguments(crop_seconds=0.05),
            PruningTrainingArguments(output_dir=str(folder), **training),
        )

    with pytest.raises(Interrupted):
        prune(is_interrupted=True)
    return prune


def other_weights(tmp_path, name):
    shutil.rmtree(tmp_path / name)
    save_checkpoint(tmp_path / name, tiny_stock("wavlm", seed=7))


CHANGES = {
    "model": (lambda path: other_weights(path, "model"), "model: other weights"),
    "teacher": (lambda path: other_weights(path, "teacher"), "teacher: other weights"),
    "content": (
        lambda path: write_audio(path / "audio", seed=5),
        "held-out clips: other content; training clips: other content",
    ),
    "number": (lambda path: (path / "audio" / "3.wav").unlink(), r"training clips: 4 clips before, 3 now"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_content_under_the_same_names_is_refused(run, tmp_path, change):
    make, message = CHANGES[change]
    make(tmp_path)
    with pytest.raises(ValueError, match=f"that read something else: .*{message}") as error:
        run()
    assert "sha256" not in str(error.value) and not (tmp_path / "out").exists()
    assert run(override=True).is_dir()


def test_other_versions_are_refused(run, tmp_path, monkeypatch):
    versions = {"torch": "1.0", "transformers": "4.0"}
    monkeypatch.setattr("hf_prunable.cli.pruning_setup.installed_versions", lambda: versions)
    with pytest.raises(
        ValueError, match=r"versions: .*torch [\d.+a-z]+ before, 1\.0 now, transformers .* before, 4\.0 now"
    ):
        run()


def test_the_same_content_goes_on(run, tmp_path):
    # Saved and copied again: other files, the same content.
    for name in ("model", "teacher", "audio"):
        shutil.copytree(tmp_path / name, tmp_path / "copy")
        shutil.rmtree(tmp_path / name)
        (tmp_path / "copy").rename(tmp_path / name)
    folder = run()
    assert (folder / "config.json").is_file() and not (tmp_path / "out.partial").exists()
