"""Names of the Auto classes of transformers, by the kind of head that they load."""

from __future__ import annotations


BASE_MODEL = "AutoModel"
CTC = "AutoModelForCTC"
AUDIO_CLASSIFICATION = "AutoModelForAudioClassification"
AUDIO_XVECTOR = "AutoModelForAudioXVector"
