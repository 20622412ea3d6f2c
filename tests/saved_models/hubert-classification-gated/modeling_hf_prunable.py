from hf_prunable import PrunableHubertConfig, PrunableHubertModel, PrunableHubertForCTC, PrunableHubertForSequenceClassification  # noqa: F401
