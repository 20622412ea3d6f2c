"""s3prl's own runner trains its example task with a pruned model as upstream."""

import importlib.util
import subprocess
import sys

import pytest
import yaml
from transformers import Wav2Vec2FeatureExtractor

from tests.helpers.fresh_processes import ragged
from tests.helpers.processes import ROOT, with_root


# Found, not imported: s3prl 0.4.18 fails at import with torchaudio 2.9 and later.
if importlib.util.find_spec("s3prl") is None:
    pytest.skip("s3prl is not installed", allow_module_level=True)

# s3prl 0.4.18 imports what torchaudio 2.9 removed; its example task calls none of it but the choice of a backend.
RUN = """
import runpy
import sys
import types

import torchaudio

if not hasattr(torchaudio, "set_audio_backend"):
    torchaudio.set_audio_backend = lambda backend: None
    sox = torchaudio.sox_effects = sys.modules["torchaudio.sox_effects"] = types.ModuleType("torchaudio.sox_effects")
    sox.apply_effects_file = sox.apply_effects_tensor = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# Of the task "example": noise of 5 to 20 seconds and 48 random classes.
CONFIG = {
    "runner": {
        "total_steps": 2,
        "gradient_clipping": 1,
        "gradient_accumulate_steps": 1,
        "log_step": 1,
        "eval_step": 10,
        "save_step": 2,
        "max_keep": 1,
        "eval_dataloaders": ["dev"],
    },
    "optimizer": {"name": "TorchOptim", "torch_optim_name": "Adam", "lr": 1e-3},
    "downstream_expert": {
        "datarc": {"num_workers": 0, "train_batch_size": 2, "eval_batch_size": 2},
        "modelrc": {"input_dim": 8},
    },
}


def test_runner_trains_with_a_pruned_upstream(tmp_path):
    folder, results = tmp_path / "model", tmp_path / "results"
    # One frame per 640 samples, as clips are long.
    ragged("wavlm", conv_stride=(10, 8, 8)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True, do_normalize=True).save_pretrained(folder)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(ROOT / "examples/s3prl_upstream.py")]
        + ["-m", "train", "-u", "hf_prunable", "-k", str(folder), "-d", "example", "--device", "cpu"]
        + ["-c", str(tmp_path / "config.yaml"), "-p", str(results)],
        cwd=tmp_path,
        env=with_root() | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (results / "states-2.ckpt").is_file()
