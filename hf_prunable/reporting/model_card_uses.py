"""Sentences of a model card on what the model is for, and what it is not for."""

from __future__ import annotations

from ..runtime.auto_classes import AUDIO_CLASSIFICATION, BASE_MODEL, CTC
from ..runtime.project import project_url
from .finetuning_report import FinetuningInputs
from .model_card_overview import SavedModel
from .model_card_parts import dataset_text, link
from .pruning_inputs import PruningInputs
from .public_text import code_span
from .run_report import RunInputs


# Class names that a card lists.
SHOWN_CLASSES = 40
# What the classes are and the name of the task.
TASKS = {
    "word": ("words", "Word classification"),
    "speaker": ("speakers", "Speaker identification"),
    "keyword": ("classes (ten keywords, other words, silence)", "Keyword spotting"),
}
OWN_TASK = ("classes", "Audio classification")


def task_texts(inputs: FinetuningInputs) -> tuple[str, str]:
    """Returns what the classes are, and the name of the task.

    Args:
        inputs: Inputs of the run.
    """
    return OWN_TASK if inputs.has_own_labels else TASKS[inputs.task]


def uses_of_pruned(inputs: PruningInputs, model: SavedModel) -> list[str]:
    """Returns what a pruned model is for.

    Args:
        inputs: Inputs of the run.
        model: Saved model.
    """
    uses = {
        BASE_MODEL: [
            "Speech features: hidden states for probes, for clusters of frames, or for a model on top.",
            "Fine-tuning for classification, transcription and other tasks, with the classes of transformers.",
        ],
        CTC: ["Transcription of speech like that of its training labels, with the symbols of its tokenizer."],
        AUDIO_CLASSIFICATION: ["Classification of clips into the classes that `id2label` in `config.json` names."],
    }.get(model.auto_class, [f"The task that its {model.auto_class} head was trained for."])
    return [
        *uses,
        f"Places where {link(inputs.model_name)} does the work, but is too large or too slow. Compare both on your task first.",
    ]


def misuses_of_pruned(inputs: PruningInputs, model: SavedModel) -> list[str]:
    """Returns what a pruned model is not for.

    Args:
        inputs: Inputs of the run.
        model: Saved model.
    """
    no_head = "Transcription or classification as it is: the model has no head. Fine-tune it first."
    return [*([no_head] if model.auto_class == BASE_MODEL else []), *_misuses_of_all(inputs, model)]


def uses_of_classifier(inputs: FinetuningInputs) -> list[str]:
    """Returns what a fine-tuned classifier is for.

    Args:
        inputs: Inputs of the run.
    """
    shown = ", ".join(map(code_span, inputs.class_names[:SHOWN_CLASSES]))
    others = len(inputs.class_names) - SHOWN_CLASSES
    more = f" and {others} more, which `config.json` lists" if others > 0 else ""
    return [
        f"Clips of about {inputs.clip_seconds:.3g} s, each with one of these classes: {shown}{more}.",
        "A start for fine-tuning on other classes of short clips.",
    ]


def misuses_of_classifier(inputs: FinetuningInputs, model: SavedModel) -> list[str]:
    """Returns what a fine-tuned classifier is not for.

    Args:
        inputs: Inputs of the run.
        model: Saved model.
    """
    classes, _ = task_texts(inputs)
    others = {
        "keyword": "Music and other sounds: each clip gets a class, and only other words and silence have one.",
        "speaker": "Speakers who are not among the classes, and proof of identity: each clip gets one of the known speakers.",
    }.get("" if inputs.has_own_labels else inputs.task)
    return [
        others
        or f"Audio that is none of these {len(inputs.class_names)} {classes}: each clip gets one of them all the same.",
        f"Longer or much shorter clips: it was trained and tested on clips of {inputs.clip_seconds:.3g} s.",
        *_misuses_of_all(inputs, model),
    ]


def _misuses_of_all(inputs: RunInputs, model: SavedModel) -> list[str]:
    data = "the audio of the run" if inputs.dataset_name is None else dataset_text(inputs.dataset_name)
    return [
        f"Another sampling rate than {model.sampling_rate:,} Hz, or several channels: resample, and take one channel.",
        f"Languages, voices and noise that neither {link(inputs.model_name)} nor {data} covers: nothing was measured there.",
        "Live audio frame by frame: each frame depends on the whole clip. "
        f"[Long recordings and streams]({project_url('Documentation')}/guides/long_audio.md) says what it costs to run it in parts.",
    ]
