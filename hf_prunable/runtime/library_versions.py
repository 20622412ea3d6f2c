"""Installed versions of libraries."""

from __future__ import annotations

from importlib.metadata import version


# Libraries that compute, read or write what a result depends on.
LIBRARIES = ("hf_prunable", "torch", "transformers", "accelerate", "datasets", "numpy", "scipy", "soundfile")


def installed_versions(libraries: tuple[str, ...] = LIBRARIES) -> dict[str, str]:
    """Returns the installed versions by library name.

    Args:
        libraries: Names of installed libraries.
    """
    return {library: version(library) for library in libraries}
