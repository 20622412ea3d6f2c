"""transformers' own tests of the models, on dense and on pruned classes.

`TRANSFORMERS_SOURCE` is a checkout of transformers' source at the installed version.
"""

import os

import pytest


pytest.importorskip("parameterized")
SOURCE = os.environ.get("TRANSFORMERS_SOURCE")
if not SOURCE:
    pytest.skip("TRANSFORMERS_SOURCE does not name a checkout of transformers", allow_module_level=True)

from tests.third_party.transformers_cases import FILES, add_source, cases, prunable_case  # noqa: E402


COMMON = add_source(SOURCE)
for family in FILES:
    stock_cases = cases(COMMON, family, "stock")
    for kind in ("dense", "pruned"):
        for name, case in cases(COMMON, family, kind).items():
            made = prunable_case(kind, case, stock_cases[name])
            globals()[made.__name__] = made
