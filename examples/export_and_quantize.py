"""Measures two ways to faster inference on a CPU: an ONNX file for onnxruntime, and eight-bit weights in PyTorch.

pip install "hf_prunable[export]"
python examples/export_and_quantize.py --model_name_or_path wavlm-pruned --path wavlm-pruned.onnx \
    --audio recordings/a.flac recordings/b.flac
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.ao.quantization import quantize_dynamic
from transformers import AutoFeatureExtractor, HfArgumentParser

from hf_prunable import export_onnx, load_prunable
from hf_prunable.data.audio import audio_dataset, decode_audio
from hf_prunable.export import OnnxModel
from hf_prunable.modeling.size import SAMPLING_RATE
from hf_prunable.reporting.measurement import Latency, describe_machine, measure_latency


@dataclass
class ExportArguments:
    """Checkpoint to export, and clips to measure it on."""

    model_name_or_path: str = field(metadata={"help": "Folder or Hub id of the checkpoint."})
    path: str = field(metadata={"help": "Output file, in ONNX format."})
    audio: list[str] = field(
        default_factory=list, metadata={"help": "Audio files on which PyTorch and onnxruntime are compared."}
    )
    seconds: float = field(
        default=10.0, metadata={"help": "Length of the clip that latency is measured on, in seconds."}
    )


def print_latencies(latencies: dict[str, Latency]) -> None:
    """Prints one line for each model.

    Args:
        latencies: Latency of each model, by name.
    """
    for name, latency in latencies.items():
        print(f"{name}: {1000 * latency.median_seconds:.1f} ms ({latency.speedup:.2f}x)")


@torch.inference_mode()
def print_agreement(files: list[str], model: nn.Module, exported: OnnxModel, feature_extractor: Any) -> None:
    """Prints the largest difference between the outputs of PyTorch and of onnxruntime for each audio file.

    Args:
        files: Audio files.
        model: Model in PyTorch.
        exported: The same model in onnxruntime.
        feature_extractor: Feature extractor of the checkpoint.
    """
    sampling_rate = feature_extractor.sampling_rate
    for file, clip in zip(files, audio_dataset(files)["audio"], strict=True):
        inputs = feature_extractor(decode_audio(clip, sampling_rate), sampling_rate=sampling_rate, return_tensors="pt")
        expected, found = model(inputs["input_values"]), exported(inputs["input_values"])
        difference = max((found[name] - expected[name]).abs().max().item() for name in found)
        print(f"{file}, {inputs['input_values'].shape[1] / sampling_rate:.1f} s: {difference:.1e} from PyTorch")


def main() -> None:
    (arguments,) = HfArgumentParser(ExportArguments).parse_args_into_dataclasses()
    exported = export_onnx(arguments.model_name_or_path, arguments.path, latency_seconds=arguments.seconds)
    print(f"{exported.path}: {exported.num_bytes / 1e6:.1f} MB, {exported.largest_difference:.1e} from PyTorch")
    print_latencies(exported.latencies)
    if arguments.audio:
        model = load_prunable(arguments.model_name_or_path, exported.auto_class)
        feature_extractor = AutoFeatureExtractor.from_pretrained(arguments.model_name_or_path)
        print_agreement(arguments.audio, model, OnnxModel(arguments.path), feature_extractor)

    # Quantisation takes a moment, so the model is quantised after each load instead of being saved quantised.
    model = load_prunable(arguments.model_name_or_path).prepare_for_inference_()
    small = quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
    audio = torch.randn(1, SAMPLING_RATE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = (each(audio).last_hidden_state for each in (model, small))
    error = ((found - expected).abs().mean() / expected.std()).item()
    print(f"int8: mean error of {error:.1%} of the outputs' standard deviation")
    print_latencies(measure_latency({"float32": model, "int8": small}, seconds=arguments.seconds))
    print(f"Measured with {arguments.seconds:g} s of audio on: {describe_machine('cpu')}")


if __name__ == "__main__":
    main()
