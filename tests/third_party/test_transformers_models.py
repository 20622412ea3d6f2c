"""transformers' own tests of the models, on dense and on pruned classes.

`TRANSFORMERS_SOURCE` is a checkout of transformers' source at the installed version.
"""

import os

import pytest


pytest.importorskip("parameterized")
SOURCE = os.environ.get("TRANSFORMERS_SOURCE")
if not SOURCE:
    pytest.skip("TRANSFORMERS_SOURCE does not name a checkout of transformers", allow_module_level=True)

from tests.third_party.transformers_cases import prunable_cases  # noqa: E402


globals().update(prunable_cases(SOURCE))
