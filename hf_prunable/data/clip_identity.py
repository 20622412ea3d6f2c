"""What a run has read: facts about clips and tokenizers by which it recognises that they are the same ones."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..runtime.digests import PREFIX, Hash, json_digest
from .audio import EncodedAudio, audio_name, undecoded_audio


logger = logging.get_logger(__name__)

# Content of this size in bytes or less is read as a whole: 8 s of 16-bit audio at 16 kHz.
WHOLE_BYTES = 2**18
# Number and size in bytes of the parts of longer content that are read; the first and the last part are among them.
NUM_PARTS, PART_BYTES = 8, 2**14


def identify_clips(clips: Dataset, label_column: str | None = None) -> dict[str, int | float | str]:
    """Returns facts about clips, in their order.

    The digest of the content sees the name of each file without its folders, the number of its bytes, and the bytes: all of
    them up to 256 KiB, and of longer files eight parts of 16 KiB at equal distances, from the first to the last byte. It
    does not see changes between those parts that keep the size.

    Args:
        clips: Clips with columns `audio` and `seconds`.
        label_column: Column of labels that the run uses; `None` for clips without labels.

    Returns:
        "clips" and "seconds", their number and length in all; digests "names", "lengths" and "content", and with labels
        "labels".
    """
    seconds: list[float] = clips["seconds"][:]
    names, content = hashlib.sha256(), hashlib.sha256()
    for row in logging.tqdm(undecoded_audio(clips), desc="Identifying clips", unit="clip"):
        names.update(f"{Path(audio_name(row['audio'])).name}\n".encode(errors="surrogatepass"))
        _add_content(content, row["audio"])
    facts: dict[str, Any] = {
        "clips": len(seconds),
        "seconds": round(sum(seconds), 1),
        "names": PREFIX + names.hexdigest(),
        "lengths": json_digest(seconds),
        "content": PREFIX + content.hexdigest(),
    }
    if label_column is not None:
        # A class is stored as its number, which says nothing without the names.
        class_names = getattr(clips.features[label_column], "names", None)
        facts["labels"] = json_digest([class_names, clips[label_column][:]])
    return facts


def identify_tokenizer(tokenizer: PreTrainedTokenizerBase) -> dict[str, int | str]:
    """Returns facts about how transcripts become tokens.

    Args:
        tokenizer: Tokenizer of the transcripts.

    Returns:
        "tokens", the size of the vocabulary; digests "vocabulary" and "settings".
    """
    settings = {name: value for name, value in tokenizer.init_kwargs.items() if name != "name_or_path"}
    return {
        "tokens": len(tokenizer),
        "vocabulary": json_digest(tokenizer.get_vocab()),
        "settings": json_digest({name: value for name, value in settings.items() if not name.endswith("_file")}),
    }


def _add_content(digest: Hash, audio: EncodedAudio) -> None:
    data = audio.get("bytes")
    if data is not None:
        digest.update(f"{len(data)}\n".encode())
        for start, end in _parts(len(data)):
            digest.update(memoryview(data)[start:end])
        return
    with open(str(audio.get("path")), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(f"{size}\n".encode())
        for start, end in _parts(size):
            file.seek(start)
            digest.update(file.read(end - start))


def _parts(num_bytes: int) -> list[tuple[int, int]]:
    """Returns first and end byte of the parts that are read."""
    if num_bytes <= WHOLE_BYTES:
        return [(0, num_bytes)]
    starts = [part * (num_bytes - PART_BYTES) // (NUM_PARTS - 1) for part in range(NUM_PARTS)]
    return [(start, start + PART_BYTES) for start in starts]
