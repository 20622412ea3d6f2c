"""Fixtures of the benchmarks' tests."""

import sys

import pytest

from tests.helpers.tiny_shapes import tiny_shape


@pytest.fixture(scope="module")
def shapes_dir(tmp_path_factory):
    """A folder with one shape of a tiny model."""
    folder = tmp_path_factory.mktemp("shapes")
    tiny_shape().save(folder)
    return str(folder)


@pytest.fixture
def command(monkeypatch):
    """A function that sets the command line."""

    def set_arguments(*arguments):
        monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, arguments)])

    return set_arguments
