"""peft's methods and what they do with models of this package; `docs/guides/other_tools.md` has the same table."""

from dataclasses import dataclass, field
from typing import Any


KINDS = ("dense", "pruned", "truncated")
PROJECTIONS = ["q_proj", "v_proj"]
_ODD_WIDTHS = "pruned widths need not be multiples of its block or group size"
_NO_TOKENS = "it puts tokens before the input, which audio models do not have; the same with stock models"


@dataclass(frozen=True)
class Method:
    """A method of peft with the settings of its test.

    Attributes:
        name: Name of the method.
        config: Name of peft's configuration class.
        options: Its arguments; `target_modules` are the query and value projections, if nothing else is given.
        merges: Whether `merge_and_unload` puts the adapters into the weights.
        errors: Patterns of peft's errors by kinds of models that the method does not take.
        note: Reason of what is not possible, for the table.
    """

    name: str
    config: str
    options: dict[str, Any] = field(default_factory=dict)
    merges: bool = True
    errors: dict[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def arguments(self):
        return ({"target_modules": PROJECTIONS} if "task_type" not in self.options else {}) | self.options

    @property
    def row(self):
        """Row of the table in Markdown."""
        taken = ["no" if kind in self.errors else "yes" for kind in KINDS]
        merged = "yes" if self.merges else "no"
        return f"| {self.name} | `{self.config}` | {' | '.join(taken)} | {merged} | {self.note} |"


def _of_odd_widths(name, config, message, **options):
    return Method(name, config, options, errors={"pruned": message}, note=_ODD_WIDTHS)


def _of_tokens(name, config):
    options = {"num_virtual_tokens": 2, "task_type": "SEQ_CLS"}
    errors = dict.fromkeys(KINDS, "input_ids or inputs_embeds")
    return Method(name, config, options, merges=False, errors=errors, note=_NO_TOKENS)


METHODS = (
    Method("LoRA", "LoraConfig", {"r": 2}),
    Method("LoRA, all linear layers", "LoraConfig", {"r": 2, "target_modules": "all-linear"}),
    Method("LoRA with biases", "LoraConfig", {"r": 2, "bias": "all"}),
    Method("rsLoRA", "LoraConfig", {"r": 2, "use_rslora": True}),
    Method("DoRA", "LoraConfig", {"r": 2, "use_dora": True}),
    Method("PiSSA", "LoraConfig", {"r": 2, "init_lora_weights": "pissa"}),
    Method("OLoRA", "LoraConfig", {"r": 2, "init_lora_weights": "olora"}),
    Method("AdaLoRA", "AdaLoraConfig", {"init_r": 4, "target_r": 2, "total_step": 10}),
    Method(
        "IA3",
        "IA3Config",
        {"target_modules": ["k_proj", "v_proj", "intermediate_dense"], "feedforward_modules": ["intermediate_dense"]},
    ),
    Method("LoHa", "LoHaConfig", {"r": 2}),
    Method("LoKr", "LoKrConfig", {"r": 2}),
    Method("OFT", "OFTConfig", {"oft_block_size": 4}),
    Method("BOFT", "BOFTConfig", {"boft_block_size": 4}),
    Method("VeRA", "VeraConfig", {"r": 2}),
    Method("PVeRA", "PveraConfig", {"r": 2}),
    Method("FourierFT", "FourierFTConfig", {"n_frequency": 4}),
    Method("HRA", "HRAConfig", {"r": 2}),
    Method("MiSS", "MissConfig", {"r": 2}),
    _of_odd_widths("Bone (MiSS, `bat`)", "MissConfig", "fully divisible into", r=2, init_weights="bat"),
    Method("LN tuning", "LNTuningConfig", {"target_modules": ["layer_norm", "final_layer_norm"]}),
    Method("BEFT", "BeftConfig"),
    Method("RandLoRA", "RandLoraConfig", {"r": 2}),
    Method("SHiRA", "ShiraConfig", {"r": 2}),
    Method("WaveFT", "WaveFTConfig", {"n_frequency": 4}),
    Method("DeLoRA", "DeloraConfig", {"r": 2}),
    Method("HiRA", "HiraConfig", {"r": 2}),
    Method("OSF", "OSFConfig"),
    Method("TinyLoRA", "TinyLoraConfig", {"r": 2}),
    Method("PSOFT", "PsoftConfig", {"r": 2}),
    Method("UniLoRA", "UniLoraConfig", {"r": 2}),
    Method("FRoD", "FrodConfig"),
    Method("AdaMSS", "AdamssConfig", {"r": 2}),
    Method("PEANuT", "PeanutConfig", {"r": 2}),
    Method("Lily", "LilyConfig", {"r": 2}, merges=False, note="peft does not merge it"),
    _of_odd_widths(
        "VB-LoRA", "VBLoRAConfig", "divisible by `vector_length`", r=2, num_vectors=8, vector_length=6, topk=2
    ),
    _of_odd_widths("RoAd", "RoadConfig", "divisible by group_size", group_size=2),
    _of_odd_widths("C3A", "C3AConfig", "factor of the output size", block_size=6),
    _of_odd_widths("GraLoRA", "GraloraConfig", "divisible by gralora_k", r=2, gralora_k=2),
    Method(
        "GLoRA",
        "GloraConfig",
        {"r": 2},
        errors=dict.fromkeys(("dense", "pruned"), "not a plain torch.nn.Linear"),
        note="it takes `torch.nn.Linear` itself alone, and prunable layers are subclasses",
    ),
    _of_tokens("Prompt tuning", "PromptTuningConfig"),
    _of_tokens("P-tuning", "PromptEncoderConfig"),
    _of_tokens("Prefix tuning", "PrefixTuningConfig"),
)
HEADER = "| method | configuration | dense | pruned | truncated stock | merges | |"
