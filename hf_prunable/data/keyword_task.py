"""The keyword task of Speech Commands: ten words, any other word, and silence from recordings of noise.

The classes and their sizes are those of arXiv 1804.03209 and of the keyword spotting of SUPERB (arXiv 2105.01051).
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import soundfile
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, concatenate_datasets

from .audio import decode_audio
from .class_splits import SPLIT_SEED
from .classification_task import SPLITS, ClassificationTask
from .speech_commands_archive import NOISE_FOLDER
from .speech_commands_tasks import CLIP_SECONDS, read_usable_clips


KEYWORD = "keyword"
KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
UNKNOWN, SILENCE = "_unknown_", "_silence_"
CLASSES = [*sorted(KEYWORDS), SILENCE, UNKNOWN]
# What copies in parquet call the recordings of noise.
NOISE_WORDS = (NOISE_FOLDER, SILENCE)
# Where the part of a split begins and ends in each recording of noise. A recording of 10 s leaves 2 s for testing.
NOISE_PARTS = {"train": (0.0, 0.6), "validation": (0.6, 0.8), "test": (0.8, 1.0)}


def load_keyword_task(
    name_or_path: str | os.PathLike, *, sampling_rate: int, config_name: str | None = None, seed: int = SPLIT_SEED
) -> ClassificationTask:
    """Loads the task of 12 classes in the official splits.

    In each split, "_unknown_" and "_silence_" have as many clips as a keyword on average: other words drawn by a seed, and
    crops of 1 s of the recordings of noise, at random places and volumes. Each split has its own part of a recording.

    Args:
        name_or_path: Source of Speech Commands, see `read_speech_commands`.
        sampling_rate: Sampling rate in Hz that the clips will be decoded to.
        config_name: Configuration name, see `read_speech_commands`.
        seed: Random seed of the other words and of the crops of noise.

    Raises:
        FileNotFoundError: See `read_speech_commands`.
        ValueError: See `read_speech_commands`; or if keywords, other words or noise are missing.
    """
    name = str(name_or_path)
    clips = read_usable_clips(name_or_path, None, sampling_rate, config_name)
    table = clips.table
    words, split_of = table["word"][:], table["split"][:]
    noise = [decode_audio(table[row]["audio"], sampling_rate) for row, word in enumerate(words) if word in NOISE_WORDS]
    keywords = [word if word in KEYWORDS else UNKNOWN for word in words]
    # Columns are added before rows are selected: added after it, datasets would copy all the audio.
    table = _with_columns(table, keywords, clips.seconds_of)
    generator, splits = np.random.default_rng(seed), {}
    for split in SPLITS:
        own = [row for row in clips.rows if split_of[row] == split]
        chosen, count = _draw_clips(own, words, generator, f"{name}, split {split!r}")
        crops = _noise_crops(noise, split, count, sampling_rate, generator)
        silence = _silence(crops, sampling_rate, table.features)
        splits[split] = concatenate_datasets([table.select(chosen), silence])
    return ClassificationTask(KEYWORD, DatasetDict(splits), clips.skipped, CLIP_SECONDS)


def _with_columns(table: Dataset, keywords: Sequence[str], seconds: Mapping[int, float]) -> Dataset:
    class_ids = {name: class_id for class_id, name in enumerate(CLASSES)}
    table = table.select_columns("audio")
    table = table.add_column(KEYWORD, list(keywords), feature=Value("string"))
    table = table.add_column("label", [class_ids[keyword] for keyword in keywords], feature=ClassLabel(names=CLASSES))
    return table.add_column("seconds", [seconds.get(row) for row in range(len(table))], feature=Value("float64"))


def _draw_clips(
    rows: Sequence[int], words: Sequence[str], generator: np.random.Generator, name: str
) -> tuple[list[int], int]:
    """Draws the clips of other words.

    Args:
        rows: Indices of the usable clips of a split, in their order.
        words: Word of each clip.
        generator: Source of the draw.
        name: Name of the source and the split in messages.

    Returns:
        Indices of the clips of keywords and of those that were drawn, in their order; and the mean number of clips of a
        keyword.
    """
    present = Counter(words[row] for row in rows)
    if missing := [word for word in KEYWORDS if not present[word]]:
        raise ValueError(f"{name}: no usable clip of {', '.join(missing)}. The keyword task needs all ten words.")
    others = [row for row in rows if words[row] not in KEYWORDS]
    count = round(sum(present[word] for word in KEYWORDS) / len(KEYWORDS))
    if len(others) < count:
        raise ValueError(
            f"{name}: {len(others)} usable clips of other words, and the class {UNKNOWN!r} needs {count}."
        )
    drawn = set(generator.permutation(others)[:count].tolist())
    return [row for row in rows if words[row] in KEYWORDS or row in drawn], count


def _noise_crops(
    recordings: Sequence[np.ndarray], split: str, count: int, sampling_rate: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """Crops of noise from the part of the recordings that belongs to a split, with random volumes from 0 to 1."""
    length = round(CLIP_SECONDS * sampling_rate)
    start, end = NOISE_PARTS[split]
    parts = [noise[round(start * len(noise)) : round(end * len(noise))] for noise in recordings]
    parts = [part for part in parts if len(part) >= length]
    if not parts:
        raise ValueError(
            f"The class {SILENCE!r} is made from recordings of noise in {NOISE_FOLDER}, and there is none that is long enough: "
            f"one of {CLIP_SECONDS / (1 - NOISE_PARTS['test'][0]):g} s or more is needed. Give the official archive."
        )
    crops = []
    for index in range(count):
        part = parts[index % len(parts)]
        first = int(generator.integers(len(part) - length + 1))
        crops.append(part[first : first + length] * generator.uniform())
    return crops


def _silence(crops: Sequence[np.ndarray], sampling_rate: int, features: Features) -> Dataset:
    """Makes clips of the class of silence, as wav in memory, with the columns of other clips."""
    items = []
    for index, crop in enumerate(crops):
        buffer = io.BytesIO()
        soundfile.write(buffer, crop, sampling_rate, format="WAV", subtype="PCM_16")
        items.append({"bytes": buffer.getvalue(), "path": f"{SILENCE}/{index}.wav"})
    silence = Dataset.from_dict(
        {
            "audio": items,
            KEYWORD: [SILENCE] * len(items),
            "label": [CLASSES.index(SILENCE)] * len(items),
            "seconds": [CLIP_SECONDS] * len(items),
        }
    )
    return silence.cast(features)
