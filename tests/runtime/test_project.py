"""Addresses of the project."""

from configparser import ConfigParser
from pathlib import Path

import pytest

from hf_prunable.runtime.project import install_requirement, project_url


def test_addresses_come_from_one_line():
    setup = ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg")
    url = setup["metadata"]["url"]
    assert project_url() == url and project_url("Documentation") == f"{url}/tree/main/docs"
    assert install_requirement() == f'"hf_prunable @ git+{url}"'
    assert install_requirement("export") == f'"hf_prunable[export] @ git+{url}"'


def test_an_address_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="names no 'Shop' address, but .*'Documentation'.* Install it again"):
        project_url("Shop")
