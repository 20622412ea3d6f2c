"""The names of Auto classes are those of transformers."""

import transformers

from hf_prunable.runtime import auto_classes


def test_transformers_has_every_auto_class():
    names = [value for name, value in vars(auto_classes).items() if name.isupper()]
    assert len(names) == len(set(names)) and all(isinstance(getattr(transformers, name), type) for name in names)
