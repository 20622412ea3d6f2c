"""Which transformers is installed: what it does itself differs between the oldest and the newest supported version."""

import transformers
from packaging.version import Version


INSTALLED_TRANSFORMERS = Version(Version(transformers.__version__).base_version)


def has_transformers(version: str) -> bool:
    """Whether the installed transformers is this version or a newer one."""
    return INSTALLED_TRANSFORMERS >= Version(version)
