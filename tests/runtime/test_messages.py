"""Lists of names in messages."""

from hf_prunable.runtime.messages import first_names


def test_long_lists_are_shortened():
    assert first_names([]) == "" and first_names(["a"]) == "a"
    assert first_names(list("abcde")) == "a, b, c, d, e"
    assert first_names(dict.fromkeys("abcdefg")) == "a, b, c, d, e and 2 more"
