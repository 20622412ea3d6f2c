"""A process of its own that does the jobs of a JSON file and writes what it finds beside it; no test module."""

import importlib
import json
import logging
import os
import sys
from pathlib import Path

import torch
import transformers

# What hf_prunable will import, so that a forked process has little to do.
import transformers.models.hubert.modeling_hubert
import transformers.models.wav2vec2.modeling_wav2vec2
import transformers.models.wavlm.modeling_wavlm
from safetensors.torch import load_file, save_file

from tests.helpers.import_blocker import ImportBlocker
from tests.helpers.job_outcome import outcome


plan = json.loads(Path(sys.argv[1]).read_text())
out = Path(sys.argv[1]).with_suffix("")
out.mkdir()
if plan["mode"] in ("blocked", "stock"):
    ImportBlocker("hf_prunable").install()
if plan["mode"] == "import":
    importlib.import_module("hf_prunable")
torch.set_num_threads(1)
transformers.logging.disable_progress_bar()
records = []
handler = logging.Handler()
handler.emit = lambda record: records.append(record.getMessage())
transformers.logging.get_logger("transformers").addHandler(handler)
trust = {"trust_remote_code": True} if plan["mode"] in ("trust", "blocked") else {}
inputs = load_file(plan["inputs"])


def do(job):
    kwargs = dict(job.get("kwargs", {}), **trust)
    result = {}
    if job["auto"] == "AutoConfig":
        result["config"] = transformers.AutoConfig.from_pretrained(job["folder"], **kwargs).to_dict()
    elif job["auto"] == "AutoFeatureExtractor":
        result["class"] = type(transformers.AutoFeatureExtractor.from_pretrained(job["folder"], **kwargs)).__name__
    else:
        if kwargs.get("dtype", "auto") != "auto":
            kwargs["dtype"] = getattr(torch, kwargs["dtype"])
        model, info = getattr(transformers, job["auto"]).from_pretrained(
            job["folder"], output_loading_info=True, **kwargs
        )
        result["info"] = {kind: sorted(map(str, keys)) for kind, keys in info.items()}
        result["class"] = type(model).__name__
        result["training"] = model.training
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        save_file(state, out / f"{job['name']}.state")
        values = {"input_values": inputs["input_values"].to(model.dtype), "attention_mask": inputs["attention_mask"]}
        with torch.no_grad():
            output = model(**values, output_hidden_states=True)
        tensors = {f"hidden_{i}": tensor.clone() for i, tensor in enumerate(output.hidden_states)}
        first = output.logits if "logits" in output else output.last_hidden_state
        save_file(tensors | {"first": first.contiguous()}, out / f"{job['name']}.output")
        if "save" in job:
            model.save_pretrained(job["save"])
    return result


def attempt(job):
    records.clear()
    before = "hf_prunable" in sys.modules
    result = outcome(do, job)
    result |= {"logs": list(records), "imported": [before, "hf_prunable" in sys.modules]}
    (out / f"{job['name']}.json").write_text(json.dumps(result))


# The first load registers the classes; an isolated job starts without them.
for job in sorted(plan["jobs"], key=lambda job: not job.get("isolated")):
    if not job.get("isolated"):
        attempt(job)
    elif os.fork() == 0:
        attempt(job)
        os._exit(0)
    else:
        os.wait()
