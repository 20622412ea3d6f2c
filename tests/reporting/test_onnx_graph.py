"""Names of the inputs and outputs of a graph."""

import pytest

from hf_prunable.reporting.onnx_graph import name_hidden_states


def test_names_of_hidden_states():
    assert name_hidden_states(None, False, 3) == {}
    assert name_hidden_states(None, True, 2) == {
        0: "hidden_states.0",
        1: "hidden_states.1",
        2: "hidden_states.2",
    }
    assert name_hidden_states({3: "unit12", 0: "first"}, False, 3) == {3: "unit12", 0: "first"}


@pytest.mark.parametrize(
    ("chosen", "error", "message"),
    [
        ({4: "a"}, ValueError, "no hidden state 4: the model has 3 layers, .* from 0, .* to 3"),
        ({-1: "a"}, ValueError, "no hidden state -1"),
        ({"3": "a"}, TypeError, "the index '3', a str; give integers from 0 to 3"),
        ({True: "a"}, TypeError, "the index True, a bool"),
        ({2.0: "a"}, TypeError, "the index 2.0, a float"),
        ({1: ""}, ValueError, "name of hidden state 1 is ''; give a letter"),
        ({1: "a b"}, ValueError, "name of hidden state 1 is 'a b'"),
        ({1: None}, TypeError, "name of hidden state 1 is None, a NoneType; give a text"),
        (
            {1: "a", 2: "a"},
            ValueError,
            "name of hidden state 2, 'a', is that of another .* than a, attention_mask, audio",
        ),
        ({1: "last_hidden_state"}, ValueError, "'last_hidden_state', is that of another input or output"),
        ({1: "audio"}, ValueError, "'audio', is that of another input or output"),
        ([1, 2], TypeError, r"`hidden_states` is \[1, 2\], a list; give a dict of names by index"),
    ],
)
def test_hidden_states_that_cannot_be_named(chosen, error, message):
    with pytest.raises(error, match=message):
        name_hidden_states(chosen, False, 3, "audio")


def test_all_and_some_hidden_states_exclude_each_other():
    with pytest.raises(ValueError, match="Both `hidden_states` and `output_hidden_states` are given"):
        name_hidden_states({1: "a"}, True, 3)
