"""A folder that cannot be the source of the tests is refused by name."""

import pytest
import transformers

from tests.third_party.transformers_cases import add_source


def test_no_checkout(tmp_path):
    with pytest.raises(FileNotFoundError, match="TRANSFORMERS_SOURCE is .*no tests/models.*Give a checkout's root"):
        add_source(str(tmp_path))


def test_another_version(tmp_path):
    (tmp_path / "tests/models").mkdir(parents=True)
    package = tmp_path / "src/transformers"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "4.0.0"\n', encoding="utf-8")
    with pytest.raises(ValueError, match=rf"version 4\.0\.0, and {transformers.__version__} is installed.*tag"):
        add_source(str(tmp_path))
