"""What every test stands on: no network, one thread, the same examples each time."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, is_hypothesis_test, settings


os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch.set_num_threads(1)

PROPERTY_TESTS = {"deadline": None, "derandomize": True, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", max_examples=25, **PROPERTY_TESTS)
settings.register_profile("thorough", max_examples=100, **PROPERTY_TESTS)
# What pyproject.toml gives to `-m`; any other expression selects slow tests.
FAST_TESTS = "not slow"


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("ci" if config.getoption("markexpr") == FAST_TESTS else "thorough")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Runs property tests among the slow tests too, there with more examples."""
    if config.getoption("markexpr") != FAST_TESTS:
        for item in items:
            if isinstance(item, pytest.Function) and is_hypothesis_test(item.obj):
                item.add_marker(pytest.mark.slow)


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
