"""The record of a run: what pruning and fine-tuning reports have in common."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ..runtime.files import write_text_atomically
from .provenance import Provenance
from .public_text import published_name


# Inputs that are names on the Hub or local paths.
SOURCES = {"model_name", "teacher_name", "dataset_name"}


@dataclass(kw_only=True)
class RunInputs:
    """Inputs of a run.

    Attributes:
        command: Command line that repeats the run.
        model_name: Folder or Hub id of the base checkpoint, as given by the user.
        family: Model type of the base checkpoint: "wavlm", "hubert" or "wav2vec2".
        sampling_rate: Sampling rate of the audio in Hz, set by the checkpoint's feature extractor.
        dataset_name: Folder, file or Hub id of the data set, as given by the user; `None` if it has no name.
        num_skipped: Number of clips left out, by cause.
    """

    command: str
    model_name: str
    family: str
    sampling_rate: int
    dataset_name: str | None = None
    num_skipped: dict[str, int] = field(default_factory=dict)


@dataclass
class RunReport:
    """Record of a run, filled while the run proceeds; all values can be written as JSON.

    Attributes:
        inputs: Inputs of the run.
        provenance: Software and hardware of the run.
    """

    FILE_NAME: ClassVar[str]

    inputs: RunInputs
    provenance: Provenance

    def save(self, folder: str | os.PathLike) -> Path:
        """Writes the record as JSON; NaN and infinity, which JSON lacks, become null.

        The record is published with the model: local names of model, teacher and data are written without their folders.

        Args:
            folder: Existing folder that the file `FILE_NAME` is written to.

        Returns:
            Path of the file.
        """
        path, values = Path(folder) / self.FILE_NAME, asdict(self)
        inputs = values["inputs"]
        for name in SOURCES & inputs.keys():
            inputs[name] = inputs[name] and published_name(inputs[name])
        write_text_atomically(path, json.dumps(_finite(values), indent=2, allow_nan=False) + "\n")
        return path


def _finite(value: Any) -> Any:
    """Replaces NaN and infinity by `None` in nested dictionaries and lists."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
