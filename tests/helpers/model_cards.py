"""Cards of tests, with the facts of a model that is not there."""

from dataclasses import replace

from hf_prunable.reporting import pruning_card as of_pruning
from hf_prunable.reporting import truncation_card as of_truncation
from hf_prunable.reporting.model_card_overview import SavedModel


SAVED_MODEL = SavedModel(
    auto_class="AutoModel",
    is_stock=False,
    sampling_rate=16000,
    normalizes=True,
    samples_per_frame=320,
    num_hidden_states=4,
    hidden_size=24,
)


def pruning_card(report, name, source=None, **facts):
    return of_pruning.pruning_card(report, name, replace(SAVED_MODEL, **facts), source=source)


def truncation_card(report, name, source=None, **facts):
    facts = {"auto_class": "AutoModelForAudioClassification", "is_stock": True} | facts
    return of_truncation.truncation_card(report, name, replace(SAVED_MODEL, **facts), source=source)
