"""Scripts of the repository as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from tests.helpers.processes import ROOT


def load_script(path: str) -> ModuleType:
    """Imports a script.

    Args:
        path: From the root of the repository.
    """
    name = Path(path).stem
    specification = importlib.util.spec_from_file_location(name, ROOT / path)
    module = importlib.util.module_from_spec(specification)
    # dataclasses look their module up by its name.
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module
