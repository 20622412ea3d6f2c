"""A process of its own that does the jobs of a JSON file against a Hub, each in a fork; no test module.

    HF_ENDPOINT=http://127.0.0.1:PORT HF_HOME=... python -m tests.helpers.hub_process JOBS.json FOLDER

FOLDER gets a JSON file for each job, named after it, and the hidden states of what was loaded.
"""

import importlib
import json
import os
import sys
from pathlib import Path

import huggingface_hub.utils._http
import torch
import transformers

# What hf_prunable will import, so that a fork has little to do.
import transformers.models.wav2vec2.modeling_wav2vec2
import transformers.models.wavlm.modeling_wavlm
from safetensors.torch import load_file, save_file

from tests.helpers.import_blocker import ImportBlocker
from tests.helpers.job_outcome import outcome


def check(job):
    from hf_prunable.hub import HubPush

    push = HubPush(job["repo_ids"], True, private=job.get("private"))
    push.check()
    return push.repo_ids


def push_output(job):
    from hf_prunable.hub import HubPush

    HubPush(job["repo_ids"], True, private=job.get("private")).push(Path(job["folder"]))


def push_folder(job):
    from hf_prunable.hub import push_folder

    return push_folder(job["folder"], job["repo_id"], private=job.get("private")).oid


def push_model(job):
    import hf_prunable

    model = hf_prunable.load_prunable(job["folder"])
    if job["how"] == "push_to_hub":
        model.push_to_hub(job["repo_id"], private=job.get("private"))
    else:
        model.save_pretrained(job["copy"], push_to_hub=True, repo_id=job["repo_id"])


def load(job):
    assert ("hf_prunable" in sys.modules) == (job["mode"] == "import")
    if job["mode"] in ("blocked", "stock"):
        ImportBlocker("hf_prunable").install()
    kwargs = {"trust_remote_code": True} if job["mode"] in ("trust", "blocked") else {}
    auto_class = getattr(transformers, job.get("auto", "AutoModel"))
    model, info = auto_class.from_pretrained(job["repo_id"], output_loading_info=True, **kwargs)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(job.get("extractor", job["repo_id"]), **kwargs)
    with torch.inference_mode():
        states = model.eval()(**load_file(job["inputs"]), output_hidden_states=True).hidden_states
    save_file({str(number): state.clone() for number, state in enumerate(states)}, out / f"{job['name']}.states")
    return {
        "class": type(model).__name__,
        "extractor": type(extractor).__name__,
        "wrong": {kind: sorted(map(str, keys)) for kind, keys in info.items() if keys},
        "imported": "hf_prunable" in sys.modules,
    }


def execute(job):
    os.chdir(job["folder"])
    values = {}
    exec(job["code"], values)
    return values["model"].config.num_hidden_layers, list(values["outputs"][0].shape)


def card_license(job):
    from hf_prunable.reporting.model_card_parts import license_fields

    return license_fields(job["model"])


def benchmark(job):
    from hf_prunable.reporting.eval_results import benchmark_task

    return [benchmark_task(*arguments) for arguments in job["arguments"]]


def attempt(job):
    os.environ.pop("HF_TOKEN", None)
    if job.get("token"):
        os.environ["HF_TOKEN"] = job["token"]
    huggingface_hub.constants.ENDPOINT = job.get("endpoint", huggingface_hub.constants.ENDPOINT)
    # Waiting between attempts is for a network, not for a test.
    huggingface_hub.utils._http.time = type("time", (), {"sleep": staticmethod(lambda seconds: None)})
    result = outcome(lambda job: {"value": globals()[job["do"]](job)}, job)
    (out / f"{job['name']}.json").write_text(json.dumps(result))


jobs, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
torch.set_num_threads(1)
# Those that nothing has imported the library for come first.
for job in sorted(jobs, key=lambda job: job.get("mode", "import") == "import"):
    if job.get("mode", "import") == "import":
        # Once for all forks that are left.
        importlib.import_module("hf_prunable.hub")
    if os.fork() == 0:
        attempt(job)
        # Without what a fork has inherited to do at its end.
        sys.stderr.flush()
        os._exit(0)
    os.wait()
