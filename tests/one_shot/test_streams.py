"""Streams carry the hidden states of the model."""

import pytest
import torch

from hf_prunable.one_shot.blocks import AttentionBlock, FeedForwardBlock
from hf_prunable.one_shot.streams import Stream
from tests.helpers.one_shot_models import VARIANTS, make_clips, variant


# Rounding of float32 over a whole model of values around 1, between products over batches of different size.
TOLERANCE = 2e-5


def carry(stream, layer):
    """Takes a stream through a layer."""
    block = AttentionBlock(layer)
    stream.replace([block.normalize(sums) for sums in stream.attention_sums(block)])
    block = FeedForwardBlock(layer)
    stream.replace([block.adapt(block.normalize(sums)) for sums in stream.feed_forward_sums(block)])


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_states_are_hidden_states(name, batch_size):
    model, clips = variant(name), make_clips(5)
    expected = model(clips, output_hidden_states=True).hidden_states
    stream = Stream(model, clips, batch_size)
    torch.testing.assert_close(stream.states, expected[0], rtol=0, atol=TOLERANCE)
    for layer_idx, layer in enumerate(model.encoder.layers):
        carry(stream, layer)
        torch.testing.assert_close(stream.states, expected[layer_idx + 1], rtol=0, atol=TOLERANCE)


def test_batches_are_the_states_in_order():
    stream = Stream(variant("hubert-post-group"), make_clips(5), 2)
    batches = list(stream.batches())
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert torch.equal(torch.cat(batches), stream.states)


@torch.no_grad()
def test_spec_augment_and_dropout_are_off():
    """The streams are those of a model in evaluation mode, and repeatable."""
    model, clips = variant("wavlm-post-group"), make_clips(3)
    assert torch.equal(Stream(model, clips, 2).states, Stream(model, clips, 2).states)


@torch.no_grad()
def test_integer_and_double_audio():
    model, clips = variant("wavlm-post-group"), make_clips(3)
    torch.testing.assert_close(Stream(model, clips.double(), 2).states, Stream(model, clips, 2).states)
