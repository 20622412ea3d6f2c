"""Modules that are on another device for a time."""

import pytest
import torch
from torch import nn

from hf_prunable.runtime.device_moves import on_device


class Recorder(nn.Linear):
    """Writes down where it is moved to, and stays."""

    def __init__(self):
        super().__init__(2, 2)
        self.moves = []

    def to(self, device):
        self.moves.append(device)
        return self


@pytest.mark.parametrize("fails", [False, True])
def test_modules_come_back_also_after_an_error(fails):
    first, second = Recorder(), Recorder()
    there, back = torch.device("cuda"), torch.device("cpu")
    try:
        with on_device([first, first, second], there):
            assert first.moves == second.moves == [there]
            if fails:
                raise RuntimeError("inside")
    except RuntimeError as error:
        assert fails and str(error) == "inside"
    assert first.moves == second.moves == [there, back]
