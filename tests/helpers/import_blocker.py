"""Makes a package look as if it were not installed."""

import sys


class ImportBlocker:
    """Refuses to find a package and what is in it.

    Args:
        package: Its name; it must not have been imported yet.
    """

    def __init__(self, package):
        assert package not in sys.modules
        self.package = package

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    def install(self):
        sys.meta_path.insert(0, self)
