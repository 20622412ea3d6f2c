"""Rotation of the heads of an attention block from statistics of its inputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from ..modeling.attention import PrunableAttention
from ..modeling.gated import GatedLinear
from ..modeling.pretrained import PrunableModelMixin
from ..runtime.evaluation_mode import evaluation_mode
from .blocks import AttentionBlock, FeedForwardBlock, add_output
from .calibration import check_clips, check_models, own_clips
from .rotation import rotate_query_key, rotate_rows_, rotate_value_output
from .statistics import NormalEquations, equations_of, sum_over_processes_
from .streams import Stream


def query_key_grams(
    attention: PrunableAttention, inputs: Iterable[torch.Tensor]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Returns the mean products of each head's queries and of its keys.

    Args:
        attention: Attention module with query/key dimensions.
        inputs: What the module reads, in batches of shape (clips, frames, hidden size).

    Returns:
        A Gram matrix of shape (width, width) for each head, for queries and for keys; keys are centred over the frames
        of each clip.
    """
    assert attention.shape is not None
    widths = attention.shape.query_key
    device = attention.v_proj.weight.device
    grams = [[torch.zeros(width, width, dtype=torch.float64, device=device) for width in widths] for _ in range(2)]
    num_frames = torch.zeros((), dtype=torch.float64, device=device)
    for batch in inputs:
        query, key, _ = attention._project(batch)
        if query is None or key is None:
            break
        key = key - key.mean(1, keepdim=True)
        for sums, states in zip(grams, (query, key), strict=True):
            for gram, head in zip(sums, states.flatten(0, 1).double().split(widths, -1), strict=True):
                gram.addmm_(head.T, head)
        num_frames += batch.shape[0] * batch.shape[1]
    for gram in (num_frames, *grams[0], *grams[1]):
        sum_over_processes_(gram)
    queries, keys = ([gram / num_frames for gram in sums] for sums in grams)
    return queries, keys


def rotate_queries_and_keys_(attention: PrunableAttention, inputs: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Rotates the queries and keys of all heads, in place.

    Args:
        attention: Attention module.
        inputs: What the module reads, in batches of shape (clips, frames, hidden size).

    Returns:
        Mean squared score that each dimension carries, in descending order, one tensor per head.
    """
    if attention.q_proj is None or attention.k_proj is None or attention.shape is None:
        return [torch.zeros(0, dtype=torch.float64) for _ in attention.heads]
    energies, start = [], 0
    grams = query_key_grams(attention, inputs)
    for width, query_gram, key_gram in zip(attention.shape.query_key, *grams, strict=True):
        rows = slice(start, start + width)
        start += width
        if not width:
            energies.append(query_gram.new_zeros(0))
            continue
        rotation = rotate_query_key(query_gram, key_gram)
        for projection, matrix in ((attention.q_proj, rotation.query), (attention.k_proj, rotation.key)):
            rotate_rows_(projection.weight.data[rows], projection.bias.data[rows], matrix)
        energies.append(rotation.energy)
    return energies


def rotate_values_and_outputs_(
    attention: PrunableAttention, equations: NormalEquations
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Rotates the values of all heads and the columns of the output projection that read them, in place.

    Args:
        attention: Attention module with heads.
        equations: Normal equations of the output projection, which are changed to the new basis.

    Returns:
        Mean squared output that each dimension carries, in descending order, one tensor per head; and the matrix that
        contexts in the old basis are multiplied with from the right, of shape (dimensions, dimensions).
    """
    assert attention.shape is not None and isinstance(attention.out_proj, GatedLinear)
    gram = equations.gram
    change = torch.zeros_like(gram[:-1, :-1])
    energies, start = [], 0
    for width in attention.shape.value_output:
        dims = slice(start, start + width)
        start += width
        columns = attention.out_proj.weight.data[:, dims]
        rotation = rotate_value_output(gram[dims, dims], columns.double())
        rotate_rows_(attention.v_proj.weight.data[dims], attention.v_proj.bias.data[dims], rotation.value)
        columns.copy_(rotation.output)
        change[dims, dims] = rotation.value
        energies.append(rotation.energy)
    equations.transform_(change)
    return energies, change


@dataclass(frozen=True)
class LayerEnergies:
    """How much of each head the first dimensions of its rotated basis carry.

    Attributes:
        query_key: Fraction of the mean squared scores that the first 1, 2, ... query/key dimensions carry, one tensor of
            shape (width,) per head; empty for a head without them.
        value_output: Fraction of the mean squared output that the first value/output dimensions carry, likewise.
    """

    query_key: tuple[torch.Tensor, ...]
    value_output: tuple[torch.Tensor, ...]


def rotate_heads_(model: PrunableModelMixin, clips: torch.Tensor, batch_size: int = 8) -> list[LayerEnergies]:
    """Rotates the heads of all layers so that their first dimensions carry most, in place.

    Outputs stay the same to rounding, with any audio. The basis is that of the frames of `clips`.

    Args:
        model: Base or head model without gates, dense or pruned, in float32 or float64.
        clips: Audio of shape (clips, samples), normalised as the model wants it; the same in all processes.
        batch_size: Number of clips that are computed at once, 1 or more.

    Returns:
        What the first dimensions of each head carry, one entry per layer.

    Raises:
        ValueError: If the model cannot be rotated, has another dtype, or the audio cannot serve.
    """
    check_models(model, model)
    check_clips(clips, model, allow_few_frames=True)
    if model.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"The model is {model.dtype}, in which a rotation is not exact. Load it in float32.")
    energies = []
    with evaluation_mode([model]):
        base = model.base_model
        stream = Stream(base, own_clips(clips), batch_size)
        for layer in base.encoder.layers:
            block, feed_forward = AttentionBlock(layer), FeedForwardBlock(layer)
            attention = block.attention
            query_key = rotate_queries_and_keys_(attention, map(block.before, stream.batches()))
            equations = equations_of(block.output_layer, base)
            states, position_bias = [], stream.position_bias
            for batch in stream.batches():
                features, stream.position_bias = block.features(batch, position_bias)
                equations.add(features, torch.zeros_like(batch))
                states.append(block.normalize(add_output(batch, features, block.output_layer)))
            stream.replace(states)
            value_output: list[torch.Tensor] = []
            if attention.heads:
                value_output, _ = rotate_values_and_outputs_(attention, equations.reduce_())
            energies.append(LayerEnergies(*map(_carried, (query_key, value_output))))
            sums = stream.feed_forward_sums(feed_forward)
            stream.replace([feed_forward.adapt(feed_forward.normalize(batch)) for batch in sums])
    return energies


def _carried(energies: Iterable[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Returns the fraction of the total that the first entries of each tensor add up to."""
    return tuple(
        (energy.cumsum(0) / energy.sum().clamp_min(torch.finfo(energy.dtype).tiny)).cpu() for energy in energies
    )
