"""Limits of the fields of a config.json, which hold before anything is allocated by them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from transformers.activations import ACT2FN


# Twenty times the deepest published models of these families, which have 48.
MAX_LAYERS = 960
# Eight times the widest, which have 7,680 intermediate units.
MAX_WIDTH = 2**16
# Sixteen times those of the published models with the most, which have 64.
MAX_HEADS = 2**10
# The vocabularies of multilingual text models have 250,000 entries.
MAX_CLASSES = 2**18

# Lowest and highest value by name.
LIMITS: dict[str, tuple[int, int]] = {
    "num_hidden_layers": (0, MAX_LAYERS),
    "dense_num_hidden_layers": (1, MAX_LAYERS),
    "num_adapter_layers": (0, MAX_LAYERS),
    "num_attention_heads": (1, MAX_HEADS),
    "vocab_size": (1, MAX_CLASSES),
    "num_labels": (0, MAX_CLASSES),
    # The mapping from distances to rows of the position bias table divides by a quarter of their number.
    "num_buckets": (4, MAX_WIDTH),
    **dict.fromkeys(
        (
            "hidden_size",
            "intermediate_size",
            "conv_dim",
            "conv_stride",
            "conv_kernel",
            "num_conv_pos_embeddings",
            "num_conv_pos_embedding_groups",
            "max_bucket_distance",
            "adapter_kernel_size",
            "adapter_stride",
            "output_hidden_size",
            "adapter_attn_dim",
            "classifier_proj_size",
            "tdnn_dim",
            "tdnn_kernel",
            "tdnn_dilation",
            "xvector_output_dim",
        ),
        (1, MAX_WIDTH),
    ),
}
# Fields whose values lie between 0 and 1.
FRACTIONS = frozenset(
    (
        "hidden_dropout",
        "activation_dropout",
        "attention_dropout",
        "feat_proj_dropout",
        "feat_quantizer_dropout",
        "final_dropout",
        "layerdrop",
        "mask_time_prob",
        "mask_feature_prob",
        "layer_norm_eps",
        "initializer_range",
    )
)
ACTIVATIONS = ("hidden_act", "feat_extract_activation")
DTYPES = ("float64", "float32", "bfloat16", "float16")
# Types of entries that transformers takes as they are: a value from JSON may be no other simple one.
TYPES: dict[str, tuple[type, ...]] = {
    "model_type": (str,),
    "num_labels": (int,),
    "dense_num_hidden_layers": (int,),
    "dtype": (str,),
    "torch_dtype": (str,),
    "attn_implementation": (str, dict),
    "transformers_weights": (str,),
    **dict.fromkeys(("output_attentions", "output_hidden_states", "return_dict", "gradient_checkpointing"), (bool,)),
    **dict.fromkeys(
        (
            *("gates", "auto_map", "id2label", "label2id"),
            *("quantization_config", "per_layer_config", "fusion_config"),
        ),
        (dict,),
    ),
}
SIMPLE_TYPES = (bool, int, float, str, list, dict)
# Fields of which the first has to be a multiple of the second.
MULTIPLES = (("hidden_size", "num_attention_heads"), ("hidden_size", "num_conv_pos_embedding_groups"))
# Lists with one entry for each layer of a head.
TDNN = ("tdnn_dim", "tdnn_kernel", "tdnn_dilation")
ADVICE = "The config.json is damaged, or was made to do damage: do not use this checkpoint."


def check_fields(values: Mapping[str, Any]) -> None:
    """Checks fields that have limits. The configuration class checks the types of its own fields.

    Args:
        values: Fields by name; those without limits are passed over.

    Raises:
        ValueError: If a value is out of range or of a wrong type, or two fields contradict each other.
    """
    for name, types in TYPES.items():
        value = values.get(name)
        is_bool = isinstance(value, bool)
        if isinstance(value, SIMPLE_TYPES) and (not isinstance(value, types) or is_bool != (types == (bool,))):
            expected = " or ".join(kind.__name__ for kind in types)
            raise ValueError(f"`{name}` is {_short(value)}, which is no {expected}. {ADVICE}")
    for name, (low, high) in LIMITS.items():
        value = values.get(name)
        entries = value if isinstance(value, (list, tuple)) else [value]
        if len(entries) > MAX_LAYERS or any(_is_integer(entry) and not low <= entry <= high for entry in entries):
            raise ValueError(f"`{name}` is {_short(value)}, and {low} to {high} are supported. {ADVICE}")
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"`{name}` is {value}, which is not a finite number. {ADVICE}")
        if name in FRACTIONS and isinstance(value, (int, float)) and not 0 <= value <= 1:
            raise ValueError(f"`{name}` is {_short(value)}, and 0 to 1 are supported. {ADVICE}")
    _check_names(values)
    _check_relations(values)


def _check_names(values: Mapping[str, Any]) -> None:
    for name in ACTIVATIONS:
        value = values.get(name)
        if isinstance(value, str) and value not in ACT2FN:
            raise ValueError(f"`{name}` is {_short(value)}, which is not an activation of transformers.")
    for name in ("dtype", "torch_dtype"):
        value = values.get(name)
        if isinstance(value, str) and value not in DTYPES:
            raise ValueError(f"`{name}` is {_short(value)}; it must be one of {', '.join(DTYPES)}.")


def _check_relations(values: Mapping[str, Any]) -> None:
    for name, divisor_name in MULTIPLES:
        value, divisor = values.get(name), values.get(divisor_name)
        if _is_integer(value) and _is_integer(divisor) and value % divisor != 0:
            raise ValueError(f"`{name}` is {value}, which is no multiple of `{divisor_name}`, {divisor}. {ADVICE}")
    buckets, distance = values.get("num_buckets"), values.get("max_bucket_distance")
    if _is_integer(buckets) and _is_integer(distance) and distance <= buckets // 4:
        raise ValueError(
            f"`max_bucket_distance` is {distance}, and must be above a quarter of `num_buckets`, {buckets}. {ADVICE}"
        )
    lengths = {len(value) for value in map(values.get, TDNN) if isinstance(value, (list, tuple))}
    if len(lengths) > 1 or lengths == {0}:
        raise ValueError(f"{', '.join(f'`{name}`' for name in TDNN)} must have one entry per layer each. {ADVICE}")


def _is_integer(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
