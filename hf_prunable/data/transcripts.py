"""Transcripts for CTC: whether the tokenizer knows their characters, and whether they fit the frames of their clips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..runtime.messages import first_names
from .audio import clip_name, undecoded_audio
from .speech_dataset import SkippedAudio


logger = logging.get_logger(__name__)

# The label that the CTC and cross-entropy losses of transformers leave out.
IGNORED_LABEL = -100
# Share of unknown characters above which the transcripts are taken to be written in another way than the tokenizer's:
# in the other case, or in another alphabet.
MAX_UNKNOWN_SHARE = 0.1


def encode_transcripts(tokenizer: PreTrainedTokenizerBase, transcripts: Sequence[str]) -> torch.Tensor:
    """Encodes the transcripts of a batch.

    Args:
        tokenizer: Tokenizer of the checkpoint.
        transcripts: Transcripts whose characters it knows, or which it has a symbol for unknown characters for.

    Returns:
        Token ids of shape (batch, tokens), with `IGNORED_LABEL` after the end of shorter transcripts.
    """
    token_ids = [torch.tensor(tokenizer(text).input_ids) for text in transcripts]
    return torch.nn.utils.rnn.pad_sequence(token_ids, batch_first=True, padding_value=IGNORED_LABEL)


def check_characters(
    tokenizer: PreTrainedTokenizerBase, transcripts: Sequence[Any], label_column: str, vocab_size: int
) -> None:
    """Checks that a tokenizer knows the characters of the transcripts; a warning names single ones that it does not.

    Args:
        tokenizer: Tokenizer of the checkpoint.
        transcripts: All transcripts of a data set.
        label_column: Name of their column.
        vocab_size: Number of outputs of the model's head.

    Raises:
        ValueError: If they are no text, more than `MAX_UNKNOWN_SHARE` of their characters are unknown, or a token id is
            beyond the model's outputs.
    """
    if kinds := {type(text).__name__ for text in transcripts if not isinstance(text, str)}:
        raise ValueError(
            f"CTC needs text, and the column {label_column!r} holds {', '.join(sorted(kinds))}. Name the column of the "
            "transcripts with `label_column`. In a metadata.csv, a column of digits is read as numbers: write them as "
            "words, or in quotes in a metadata.jsonl."
        )
    vocabulary = tokenizer.get_vocab()
    counts = Counter(token for text in transcripts for token in _characters(tokenizer, text))
    unknown = Counter({token: counts[token] for token in _unknown(tokenizer, vocabulary, list(counts))})
    if unknown:
        share = unknown.total() / counts.total()
        found = (
            f"{100 * share:.3g} % of the characters in the column {label_column!r} are unknown to the tokenizer: "
            f"{first_names([repr(token) for token, _ in unknown.most_common()])}"
        )
        if share > MAX_UNKNOWN_SHARE:
            known = sorted(token for token in vocabulary if token not in tokenizer.all_special_tokens)
            raise ValueError(
                f"{found}. Write the transcripts in the characters that it knows, for example in the same case: "
                f"{' '.join(known[:100])}."
            )
        logger.warning(f"{found}. Training goes on with its symbol for unknown characters in their place.")
    largest = max((vocabulary.get(token, 0) for token in counts), default=0)
    if largest >= vocab_size:
        raise ValueError(
            f"The tokenizer gives token ids up to {largest}, and the model's head has {vocab_size} outputs. Take the "
            "tokenizer that belongs to the checkpoint."
        )


def select_transcripts(
    clips: Dataset, label_column: str, tokenizer: PreTrainedTokenizerBase, count_frames: Callable[[float], int]
) -> tuple[Dataset, SkippedAudio]:
    """Leaves out clips whose transcripts CTC cannot learn; a warning names them.

    CTC needs a frame for each token, and one more between two equal ones (https://doi.org/10.1145/1143844.1143891).
    Without them, the loss is infinite.

    Args:
        clips: Clips with columns `audio` and `seconds` and a column of transcripts.
        label_column: Name of this column.
        tokenizer: Tokenizer of the checkpoint.
        count_frames: Function from the length of a clip in seconds to the number of frames of the model's output.

    Returns:
        The other clips, and those that were left out.

    Raises:
        ValueError: If no clip is left.
    """
    usable: list[int] = []
    skipped: dict[str, list[str]] = {}
    audio, vocabulary = undecoded_audio(clips), tokenizer.get_vocab()
    rows = zip(clips[label_column][:], clips["seconds"][:], strict=True)
    for row, (text, seconds) in enumerate(rows):
        cause = None
        characters = _characters(tokenizer, text)
        unknown = _unknown(tokenizer, vocabulary, characters)
        if len(unknown) == len(characters):
            cause = "with a transcript without a known character"
        elif any(tokenizer.convert_tokens_to_ids(token) is None for token in unknown):
            cause = "with an unknown character, for which the tokenizer has no symbol"
        else:
            token_ids = tokenizer(text).input_ids
            num_needed = len(token_ids) + sum(one == other for one, other in pairwise(token_ids))
            if num_needed > count_frames(seconds):
                cause = "with a transcript longer than the clip's frames"
        if cause is None:
            usable.append(row)
        else:
            skipped.setdefault(cause, []).append(clip_name(audio[row]["audio"], row))
    summary = SkippedAudio(len(clips), skipped)
    if not usable:
        raise ValueError(f"No clip with a transcript is left: {summary}. Give transcripts that fit their clips.")
    if not skipped:
        return clips, summary
    logger.warning(f"{summary}. Going on with the other {len(usable)}.")
    return clips.select(usable), summary


def _characters(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    """Returns the tokens of a transcript without those between words."""
    delimiter = getattr(tokenizer, "word_delimiter_token", None)
    return [token for token in tokenizer.tokenize(text) if token != delimiter]


def _unknown(tokenizer: PreTrainedTokenizerBase, vocabulary: dict[str, int], tokens: Sequence[str]) -> list[str]:
    """Returns the tokens that are encoded as the symbol for unknown characters, or not at all."""
    symbol = tokenizer.unk_token_id
    return [token for token in tokens if vocabulary.get(token, symbol) == symbol]
