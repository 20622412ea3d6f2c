"""What transformers' own tests take for granted."""

import os
import re
from pathlib import Path


def pytest_configure(config):
    """Registers the markers that transformers' tests use; its own configuration file is not read here."""
    source = os.environ.get("TRANSFORMERS_SOURCE")
    if source:
        folders = ("src/transformers/testing_utils.py", "tests/*.py", "tests/exporters/*.py", "tests/generation/*.py")
        files = [path for pattern in folders for path in Path(source).glob(pattern)]
        text = "".join(path.read_text(encoding="utf-8") for path in files)
        for name in sorted(set(re.findall(r"\bmark\.([a-z]\w+)", text)) - {"slow"}):
            config.addinivalue_line("markers", f"{name}: used by transformers' own tests")
