"""Fixtures of the experiments' tests."""

import pytest
from transformers import Wav2Vec2FeatureExtractor

from tests.helpers.tiny_models import tiny_stock


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Folder of a model with many units, so that the sizes can be met closely."""
    folder = tmp_path_factory.mktemp("teacher")
    tiny_stock("wavlm", intermediate_size=160).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return str(folder)
