"""Checkpoints of every kind, and processes that load them and write down what they found."""

import itertools
import json
import subprocess

import torch
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2FeatureExtractor

from hf_prunable import compact
from hf_prunable.modeling.units import UNITS
from hf_prunable.pruning.magnitude import keep_largest_weights
from tests.helpers.processes import helper_command, with_root
from tests.helpers.tiny_models import FAMILIES, HEADS, NORM_ORDERS, randomize_, tiny_inputs, tiny_prunable


AUTO_CLASSES = {
    "base": "AutoModel",
    "ctc": "AutoModelForCTC",
    "classification": "AutoModelForAudioClassification",
    "frames": "AutoModelForAudioFrameClassification",
    "xvector": "AutoModelForAudioXVector",
}
FAMILY_HEADS = [(family, head) for family in FAMILIES for head in HEADS[family]]
# With what is special to the family.
VARIANTS = {
    "wavlm": {"conv_bias": True},
    "hubert": {"conv_pos_batch_norm": True, "feat_proj_layer_norm": False},
    "wav2vec2": {"adapter_attn_dim": 5, "add_adapter": True, "output_hidden_size": 26},
}


def randomized(model, seed):
    return randomize_(model, seed).eval()


def ragged(family, head="base", seed=1, **config):
    """A pruned model with everything uneven: widths, heads, an emptied attention, a block of a bias alone."""
    model = tiny_prunable(family, head=head, **config)
    model.attach_gates(UNITS)
    randomize_(model, seed)
    layers = model.base_model.encoder.layers
    for layer in layers:
        for owner, unit in ((layer.attention.out_proj, "mha"), (layer.feed_forward.output_dense, "ffn")):
            owner.gates[unit].log_alpha.data.fill_(3.0)
    layers[0].attention.out_proj.gates["head"].log_alpha.data = torch.tensor([3.0, -4.0, 3.0, 3.0])
    layers[1].attention.out_proj.gates["mha"].log_alpha.data.fill_(-4.0)
    layers[1].feed_forward.output_dense.gates["int"].log_alpha.data.fill_(-4.0)
    layers[2].attention.out_proj.gates["head"].log_alpha.data = torch.tensor([3.0, -4.0, -4.0, 3.0])
    layers[2].attention.q_proj.gates["qk"].log_alpha.data[:6] = -4.0
    return randomized(compact(model), seed + 1)


def narrow(family, norm_order):
    """A model of a stock shape: fewer intermediate units, equally many in each layer."""
    return keep_largest_weights(tiny_prunable(family, norm_order), 0.15, stock_shape=True).eval()


def gated_ragged(family):
    model = ragged(family)
    model.attach_gates(("mha", "qk", "vo", "int", "conv"), ste=False, initial_drop_rate=0.2)
    return randomized(model, seed=5)


class Checkpoints:
    """Saves models, remembers their states and outputs, and collects the jobs of the fresh processes."""

    def __init__(self, root):
        self.root, self.models = root, {}
        self.inputs = tiny_inputs(batch_size=2, samples=600)
        self.jobs = {mode: [] for mode in ("import", "trust", "again", "stock", "blocked")}

    def save(self, name, model, **kwargs):
        folder = self.root / name
        model.save_pretrained(folder, **kwargs)
        Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
        self.models[name] = model
        return folder

    def job(self, mode, name, auto="AutoModel", checkpoint=None, **job):
        folder = str(self.root / (checkpoint or name))
        # Each kind of class is once loaded where nothing but the shim can have made it known.
        isolated = mode == "trust" and (auto != "AutoModel" or name.endswith("-base"))
        self.jobs[mode].append({"name": name, "auto": auto, "folder": folder, "isolated": isolated, **job})

    @torch.no_grad()
    def expected(self, name):
        model = self.models[name]
        output = model(
            input_values=self.inputs["input_values"].to(model.dtype),
            attention_mask=self.inputs["attention_mask"],
            output_hidden_states=True,
        )
        first = output.logits if "logits" in output else output.last_hidden_state
        return {f"hidden_{i}": tensor for i, tensor in enumerate(output.hidden_states)} | {"first": first}


def plan_checkpoints(root):
    checkpoints = Checkpoints(root)
    save, job = checkpoints.save, checkpoints.job
    for family in FAMILIES:
        base, half = f"{family}-base", f"{family}-bfloat16"
        save(base, ragged(family))
        save(half, ragged(family).to(torch.bfloat16))
        save(f"{family}-pre", ragged(family, norm_order="pre", feature_norm="group", **VARIANTS[family]))
        save(f"{family}-sharded", checkpoints.models[base], max_shard_size="4KB")
        assert len(list((root / f"{family}-sharded").glob("*.safetensors"))) > 2
        save(f"{family}-gated", gated_ragged(family))
        dense = tiny_prunable(family)
        dense.attach_gates()
        save(f"{family}-gated-dense", randomized(dense, seed=6))
        save(f"{family}-gated-bfloat16", gated_ragged(family).to(torch.bfloat16))
        for mode in ("import", "trust"):
            for name in (base, f"{family}-pre", f"{family}-sharded", f"{family}-gated", f"{family}-gated-dense"):
                job(mode, name)
            job(mode, f"{family}-as-bfloat16", checkpoint=base, kwargs={"dtype": "bfloat16"})
            job(mode, half, kwargs={"dtype": "auto"})
            job(mode, f"{family}-gated-bfloat16", kwargs={"dtype": "auto"})
            job(mode, f"{family}-device-map", checkpoint=base, kwargs={"device_map": "cpu"})
            job(mode, f"{family}-config", "AutoConfig", checkpoint=base)
            job(mode, f"{family}-extractor", "AutoFeatureExtractor", checkpoint=base)
            for head in HEADS[family][1:]:
                name = f"{family}-{head}"
                if mode == "import":
                    save(name, ragged(family, head, use_weighted_layer_sum=head != "ctc"))
                job(mode, name, AUTO_CLASSES[head])
                job(mode, f"{name}-to-base", checkpoint=name)
                job(mode, f"{name}-from-base", AUTO_CLASSES[head], checkpoint=base)
        # A model that came through trust_remote_code is saved again, with a head and without.
        for name, auto in ((base, "AutoModel"), (f"{family}-ctc", "AutoModelForCTC")):
            again = str(root / f"{name}-again")
            job("trust", f"{name}-saved-again", auto, checkpoint=name, save=again)
            job("again", f"{name}-again", auto)
        job("blocked", base)
        for head in HEADS[family]:
            shorter = {"num_hidden_layers": 2, "dense_num_hidden_layers": 3}
            for name, config in ((f"{family}-stock-{head}", {}), (f"{family}-short-{head}", shorter)):
                model = tiny_prunable(family, head=head, **config)
                save(name, model)
                # Stock WavLM computes the same in another order, so it is compared with itself.
                checkpoints.models[name] = model.to_stock()
                job("stock", name, AUTO_CLASSES[head])
    plan_narrow(checkpoints)
    return checkpoints


def plan_narrow(checkpoints):
    """Saves models of stock shapes, to be loaded with the package and where it cannot be imported."""
    for family, norm_order in itertools.product(FAMILIES, NORM_ORDERS):
        name = f"{family}-narrow-{norm_order}"
        model = narrow(family, norm_order)
        checkpoints.save(name, model)
        checkpoints.models[name] = model.to_stock()
        for mode in ("stock", "import"):
            checkpoints.job(mode, name)


class FreshProcesses:
    """Runs the jobs of a mode in a process of their own when they are first asked for.

    One process a mode, because importing transformers takes longer than all the loading.
    """

    def __init__(self, checkpoints):
        self.checkpoints, self.done = checkpoints, set()
        self.root = checkpoints.root

    def __call__(self, mode, name):
        if mode not in self.done:
            self.done.add(mode)
            self._run(mode)
        result = json.loads((self.root / mode / f"{name}.json").read_text())
        if mode != "blocked":
            assert "error" not in result, result["trace"]
        return result

    def _run(self, mode):
        save_file(self.checkpoints.inputs, self.root / "inputs")
        plan = self.root / f"{mode}.json"
        jobs = self.checkpoints.jobs[mode]
        # "again" and "trust" are the same road, the second time with what the first one wrote.
        if mode == "again":
            self("trust", jobs[0]["name"].removesuffix("again") + "saved-again")
        road = "trust" if mode == "again" else mode
        plan.write_text(json.dumps({"mode": road, "jobs": jobs, "inputs": str(self.root / "inputs")}))
        environment = with_root() | {"HF_HOME": str(self.root / f"home-{mode}"), "HF_HUB_OFFLINE": "1"}
        environment.pop("HF_MODULES_CACHE", None)
        command = [*helper_command("fresh_process"), str(plan)]
        done = subprocess.run(command, env=environment, cwd=self.root, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]

    def state(self, mode, name):
        return load_file(self.root / mode / f"{name}.state")

    def output(self, mode, name):
        return load_file(self.root / mode / f"{name}.output")
