"""Models small enough to build in a test, of every family and variant, with weights that hide no mistake."""

import torch
import transformers
from hypothesis import strategies as st

import hf_prunable
from hf_prunable import AttentionShape, LayerShape, PrunedShape


FAMILIES = ("wavlm", "hubert", "wav2vec2")
# Families on the same blocks, which only tests/modeling/test_more_families.py builds.
MORE_FAMILIES = ("unispeech", "unispeech_sat", "data2vec_audio")
ALL_FAMILIES = FAMILIES + MORE_FAMILIES
NORM_ORDERS = ("post", "pre")
FEATURE_NORMS = ("group", "layer")
NUM_LABELS = 5
# Settings of randomness in training. None is a default of transformers, and no two are equal.
NOISE = {
    "layerdrop": 0.07,
    "apply_spec_augment": True,
    "hidden_dropout": 0.13,
    "attention_dropout": 0.17,
    "activation_dropout": 0.19,
    "feat_proj_dropout": 0.23,
}
_NAMES = {
    "wavlm": "WavLM",
    "hubert": "Hubert",
    "wav2vec2": "Wav2Vec2",
    "unispeech": "UniSpeech",
    "unispeech_sat": "UniSpeechSat",
    "data2vec_audio": "Data2VecAudio",
}
_SUFFIXES = {
    "base": "Model",
    "ctc": "ForCTC",
    "classification": "ForSequenceClassification",
    "frames": "ForAudioFrameClassification",
    "xvector": "ForXVector",
}

# The heads that each family has, by short names; "base" is the model without one.
HEADS = {family: tuple(_SUFFIXES)[: 3 if family in ("hubert", "unispeech") else 5] for family in ALL_FAMILIES}
STOCK_CONFIGS = {family: getattr(transformers, f"{_NAMES[family]}Config") for family in ALL_FAMILIES}
PRUNABLE_CONFIGS = {family: getattr(hf_prunable, f"Prunable{_NAMES[family]}Config") for family in ALL_FAMILIES}
STOCK_CLASSES = {
    family: {head: getattr(transformers, f"{_NAMES[family]}{_SUFFIXES[head]}") for head in HEADS[family]}
    for family in ALL_FAMILIES
}
PRUNABLE_CLASSES = {
    family: {head: getattr(hf_prunable, f"Prunable{_NAMES[family]}{_SUFFIXES[head]}") for head in HEADS[family]}
    for family in ALL_FAMILIES
}

# No two widths are equal by chance, so that a mix-up does not fit.
_SIZES = {
    "hidden_size": 24,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "intermediate_size": 40,
    "conv_dim": (12, 16, 20),
    "conv_kernel": (10, 3, 2),
    "conv_stride": (5, 2, 2),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 11,
    "classifier_proj_size": 18,
    "ctc_loss_reduction": "mean",
    "mask_time_prob": 0.2,
    "mask_time_length": 4,
    "mask_feature_prob": 0.1,
    "mask_feature_length": 3,
    # Stock WavLM reads it without having it as a field, and fails where the feature probability is not 0.
    "mask_feature_min_masks": 1,
}
# Ragged heads, an attention and a feed-forward block of a bias alone, and a layer of which nothing is left.
_EMPTIED = PrunedShape(
    _SIZES["conv_dim"],
    (
        LayerShape(AttentionShape((1, 3), (0, 4), (6, 2)), 7),
        LayerShape(AttentionShape((), (), ()), 0),
        LayerShape(None, None),
    ),
)
_POSITION_BIAS = {"num_buckets": 32, "max_bucket_distance": 60}
_XVECTOR = {"tdnn_dim": (14, 22), "tdnn_kernel": (3, 1), "tdnn_dilation": (2, 1), "xvector_output_dim": 13}
_PRETRAINING = {
    "num_codevectors_per_group": 4,
    "num_codevector_groups": 2,
    "codevector_dim": 8,
    "proj_codevector_dim": 9,
    "num_negatives": 2,
}


def tiny_config(family, norm_order="post", feature_norm=None, prunable=False, **overrides):
    """A configuration of 3 layers with 4 heads of 6 dimensions, and 3 convolutions with one frame per 20 samples.

    Args:
        family: Family of models, one of `ALL_FAMILIES`.
        norm_order: "post" or "pre", the layer norm after each block or before it.
        feature_norm: "group" or "layer"; by default the one that goes with the norm order in published models.
        prunable: Whether to return the prunable configuration instead of the stock one.
        **overrides: Any field; on a prunable configuration also `pruned_shape` (a dict).
    """
    values = dict(_SIZES)
    if family == "wavlm":
        values |= _POSITION_BIAS
    if family not in ("hubert", "data2vec_audio"):
        values |= _XVECTOR | _PRETRAINING
    if family == "data2vec_audio":
        # Post-norm layers, layer norms between the convolutions, and short position convolutions, always.
        values |= _XVECTOR | {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 5}
    else:
        values["do_stable_layer_norm"] = {"post": False, "pre": True}[norm_order]
        values["feat_extract_norm"] = feature_norm or {"post": "group", "pre": "layer"}[norm_order]
    return (PRUNABLE_CONFIGS if prunable else STOCK_CONFIGS)[family](**(values | overrides))


def tiny_stock(family, norm_order="post", head="base", seed=0, **config):
    """A stock model in evaluation mode with random values everywhere; further arguments go to `tiny_config`."""
    model = STOCK_CLASSES[family][head](tiny_config(family, norm_order, **config))
    return randomize_(model, seed).eval()


def tiny_prunable(family, norm_order="post", head="base", seed=0, **config):
    """A prunable model in evaluation mode with random values everywhere; further arguments go to `tiny_config`."""
    model = PRUNABLE_CLASSES[family][head](tiny_config(family, norm_order, prunable=True, **config))
    return randomize_(model, seed).eval()


def tiny_emptied(family, norm_order="pre", head="base", **config):
    """A pruned model with emptied blocks and layers, of any norm order and feature norm."""
    return tiny_prunable(family, norm_order, head, pruned_shape=_EMPTIED.to_dict(), **config)


def tiny_inputs(batch_size=3, samples=800, seed=0, padded=True):
    """Waveforms, zero where they are padded, and their attention mask; the first clip has full length."""
    generator = torch.Generator().manual_seed(seed)
    input_values = torch.randn(batch_size, samples, generator=generator)
    mask = torch.ones(batch_size, samples, dtype=torch.long)
    if padded:
        for number in range(1, batch_size):
            mask[number, samples - number * samples // (batch_size + 1) :] = 0
    return {"input_values": input_values * mask, "attention_mask": mask}


def tiny_labels(model, head, inputs):
    """Labels for a head, or `None` for the base model; classes are below `NUM_LABELS`."""
    generator = torch.Generator().manual_seed(5)
    batch_size, samples = inputs["input_values"].shape
    if head == "ctc":
        # Without repetitions, so that they fit the five frames that adapters leave of the shortest clip.
        labels = [torch.randperm(model.config.vocab_size - 1, generator=generator)[:4] + 1 for _ in range(batch_size)]
        return torch.stack(labels)
    if head in ("classification", "xvector"):
        return torch.randint(0, NUM_LABELS, (batch_size,), generator=generator)
    if head == "frames":
        frames = model._get_feat_extract_output_lengths(samples)
        classes = torch.randint(0, NUM_LABELS, (batch_size, int(frames)), generator=generator)
        return torch.nn.functional.one_hot(classes, NUM_LABELS)
    return None


@torch.no_grad()
def randomize_(model, seed=0):
    """Gives every parameter and every running statistic a random value that is neither 0 nor 1, in a useful range.

    The global random state is neither read nor moved. Gates come out closed, partly open and open.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor, mean, std):
        tensor.copy_(mean + std * torch.randn(tensor.shape, generator=generator))

    for name, parameter in model.named_parameters():
        if name.endswith("log_alpha"):
            normal(parameter, 0.0, 3.0)
        elif name.endswith(("original0", "weight_g")):
            parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
        elif name.endswith("gru_rel_pos_const") or (name.endswith(".weight") and parameter.dim() == 1):
            normal(parameter, 1.0, 0.3)
        elif "rel_attn_embed" in name or parameter.dim() == 1:
            normal(parameter, 0.0, 0.5)
        else:
            normal(parameter, 0.0, parameter[0].numel() ** -0.5)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            normal(buffer, 0.0, 0.5)
        elif name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model


def pruned_shapes(config):
    """A hypothesis strategy for shapes that can be cut out of a model: with emptied heads, blocks and layers."""
    num_heads = config.num_attention_heads
    head_dim = config.hidden_size // num_heads

    def attention(heads):
        heads = sorted(heads)
        widths = [st.tuples(*[st.integers(least, head_dim) for _ in heads]) for least in (0, 1)]
        return st.builds(AttentionShape, st.just(tuple(heads)), *widths)

    attentions = st.none() | st.sets(st.integers(0, num_heads - 1)).flatmap(attention)
    intermediates = st.none() | st.integers(0, config.intermediate_size)
    layer = st.builds(LayerShape, attentions, intermediates)
    channels = [st.integers(1, full) for full in config.conv_dim[:-1]] + [st.just(config.conv_dim[-1])]
    return st.builds(PrunedShape, st.tuples(*channels), st.tuples(*[layer] * config.num_hidden_layers))
