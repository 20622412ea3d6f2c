"""Provenance of a result: library versions, commit and machine."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch

from ..runtime.library_versions import installed_versions
from .measurement import describe_machine


LIBRARIES = ("hf_prunable", "torch", "transformers", "accelerate")
PACKAGE_FOLDER = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Provenance:
    """Software and hardware that produced a result.

    Attributes:
        versions: Library versions by library name.
        commit: Git commit of hf_prunable, see `source_commit`; `None` for an installed package.
        machine: Hardware and torch version, see `describe_machine`.
    """

    versions: dict[str, str]
    commit: str | None
    machine: str

    @classmethod
    def of_this_process(cls, device: torch.device | str | None = None) -> Provenance:
        """Records the software and hardware of the current process.

        Args:
            device: Device that latency is measured on; `None` selects the first GPU, or the CPU without one.
        """
        return cls(library_versions(), source_commit(), describe_machine(device))


def library_versions() -> dict[str, str]:
    """Returns the installed versions of the libraries that a result depends on, by library name."""
    return installed_versions(LIBRARIES)


def source_commit() -> str | None:
    """Returns the git commit of the checkout that hf_prunable is imported from.

    Returns:
        Commit hash, followed by " with local changes" if tracked files differ from it; `None` if hf_prunable is not
        imported from a checkout of its own, or git is not installed.
    """
    root = PACKAGE_FOLDER.parent
    # A package installed into an environment inside another checkout must not report that checkout's commit.
    if _git(root, "rev-parse", "--show-toplevel") != str(root):
        return None
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{commit} with local changes" if commit and changes else commit


def _git(folder: Path, *arguments: str) -> str | None:
    """Returns the output of a git command; `None` if the command fails or git is not installed."""
    try:
        completed = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return completed.stdout.strip() if completed.returncode == 0 else None
