"""Entries of training steps in the Trainer's log, and their loss, which has another name with gates than without."""

from hf_prunable.pruning.trainer import LOSS_NAMES


def step_entries(log):
    return [entry for entry in log if set(LOSS_NAMES) & entry.keys()]


def loss_of(entry):
    (name,) = set(LOSS_NAMES) & entry.keys()
    return entry[name]


def losses_of(entries):
    return [loss_of(entry) for entry in entries]
