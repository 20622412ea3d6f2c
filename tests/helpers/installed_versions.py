"""Which transformers is installed: what it does itself differs between the oldest and the newest supported version."""

import pytest
import transformers
from packaging.version import Version


INSTALLED_TRANSFORMERS = Version(Version(transformers.__version__).base_version)


def has_transformers(version: str) -> bool:
    """Whether the installed transformers is this version or a newer one."""
    return INSTALLED_TRANSFORMERS >= Version(version)


def skip_uninitialized_loss(head: str) -> None:
    """Skips a test of new heads where transformers leaves the weight of the x-vector loss as the memory was."""
    if head == "xvector" and not has_transformers("5.22"):
        pytest.skip("transformers initializes the weight of the x-vector loss from 5.22 on")
