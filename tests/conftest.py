"""What every test stands on: no network, one thread, the same examples each time."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings


os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch.set_num_threads(1)

settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci")


def _shared(name: str) -> Path:
    """The folder `name` of the shared material, or a skip where it is absent."""
    root = os.environ.get("HF_PRUNABLE_SHARED") or Path(__file__).resolve().parents[2] / "shared"
    folder = Path(root).resolve() / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set HF_PRUNABLE_SHARED to the folder that holds {name}/")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Audio and data sets too large for the repository."""
    return _shared("data")


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """Checkpoints too large for the repository."""
    return _shared("models")
