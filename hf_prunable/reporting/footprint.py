"""Size of a model on disk, and in memory while it runs."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, logging

from ..modeling.auto import prunable_class
from ..modeling.checkpoint_files import find_checkpoint_file
from ..modeling.loading import load_config, load_prunable
from ..runtime.process_memory import peak, reset_peak
from .measurement import as_loaded


logger = logging.get_logger(__name__)


# Names of torch for those in safetensors files.
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass
class WeightFiles:
    """Safetensors files of a checkpoint.

    Attributes:
        num_bytes: Size of all files in bytes.
        dtype: Data types of the tensors, such as "float32".
    """

    num_bytes: int
    dtype: str


@dataclass
class Footprint:
    """Size of a model on disk and in memory.

    Attributes:
        files: Safetensors files of the checkpoint; `None` for a checkpoint without any.
        peak_bytes: Growth of a fresh process on the CPU in bytes, from before it loads the encoder in float32 to the peak
            of a forward pass on one clip; `None` if it was not measured.
        clip_seconds: Length of that clip in seconds.
    """

    files: WeightFiles | None
    peak_bytes: int | None
    clip_seconds: float

    @property
    def file_text(self) -> str:
        """Size of the files in megabytes, as the Hub shows it, with the precision; "" if it is not known."""
        return "" if self.files is None else f"{_megabytes(self.files.num_bytes)}, {self.files.dtype}"

    @property
    def peak_text(self) -> str:
        """Peak memory in megabytes; "" if it was not measured."""
        return "" if self.peak_bytes is None else _megabytes(self.peak_bytes)


def footprint_rows(footprints: Sequence[Footprint | None]) -> list[tuple[str, ...]]:
    """Returns rows of a table with the models as columns, each a title and cells; without what no model was measured for.

    Args:
        footprints: Footprint of each model; `None` for one that was not measured.
    """
    measured = [each for each in footprints if each is not None]
    if not measured:
        return []
    rows = [
        ("Weights, safetensors", *("" if each is None else each.file_text for each in footprints)),
        (
            f"Peak memory, {measured[0].clip_seconds:g} s clip",
            *("" if each is None else each.peak_text for each in footprints),
        ),
    ]
    return [row for row in rows if any(row[1:])]


def memory_note(footprints: Sequence[Footprint | None]) -> str:
    """Returns a sentence on what peak memory is, with a space at its end; "" if none was measured.

    Args:
        footprints: Footprint of each model; `None` for one that was not measured.
    """
    if all(each is None or each.peak_bytes is None for each in footprints):
        return ""
    return (
        "Peak memory is how much a fresh process on the CPU grows while it loads the encoder in float32 and runs it on one "
        "clip. "
    )


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"


def weight_files(source: str) -> WeightFiles | None:
    """Reads the size of a checkpoint's safetensors files; `None` if there are none on this machine.

    Args:
        source: Folder or Hub id of the checkpoint.
    """
    names = [SAFE_WEIGHTS_NAME]
    index = _local_file(source, SAFE_WEIGHTS_INDEX_NAME)
    if index is not None:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    files = [_local_file(source, name) for name in names]
    found = [file for file in files if file is not None]
    if len(found) < len(files):
        return None
    dtypes = sorted({dtype for file in found for dtype in _dtypes(file)})
    return WeightFiles(sum(file.stat().st_size for file in found), " and ".join(dtypes))


def _dtypes(file: Path) -> set[str]:
    with safe_open(file, framework="pt") as tensors:
        found = {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118 - it is no dictionary
    return {DTYPES.get(dtype, dtype) for dtype in found}


def _local_file(source: str, name: str) -> Path | None:
    found = find_checkpoint_file(source, name, local_files_only=True)
    return None if found is None else Path(found)


def peak_memory(sources: Iterable[str], num_samples: int) -> dict[str, int]:
    """Measures the memory of models, each in a fork of this process.

    Call it before this process computes with torch: threads of a computation are missing in a fork.

    Args:
        sources: Folders or Hub ids of the checkpoints.
        num_samples: Length of the clip of the forward pass, in samples.

    Returns:
        Growth of the process in bytes by source. A source that could not be measured, with a warning, is left out.
    """
    measured = {}
    for source in sources:
        try:
            with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
                measured[source] = pool.submit(_memory_of_forward, source, num_samples).result()
        # No such system call or file, or a process that was ended for lack of memory.
        except (OSError, ValueError, MemoryError, BrokenProcessPool) as error:
            logger.warning(f"The memory of {source!r} was not measured: {error}")
    return measured


@torch.inference_mode()
def _memory_of_forward(source: str, num_samples: int) -> int:
    """Returns how much this process grows while it loads the encoder and runs it on one clip, in bytes."""
    # Modules that the model is defined in are not part of the growth.
    prunable_class(load_config(source))
    before = reset_peak()
    model = as_loaded(load_prunable(source, dtype=torch.float32)).eval()
    model(torch.zeros(1, num_samples))
    return peak() - before
