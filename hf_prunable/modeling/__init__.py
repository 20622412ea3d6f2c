"""The prunable models."""
