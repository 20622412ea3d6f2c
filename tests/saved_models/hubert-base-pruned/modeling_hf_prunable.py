from hf_prunable import (  # noqa: F401
    PrunableHubertConfig,
    PrunableHubertForCTC,
    PrunableHubertForSequenceClassification,
    PrunableHubertModel,
)
