"""Report of one-shot pruning: tables of the loss, the same values as JSON, and two pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result_files import save_result
from experiments.one_shot_pictures import draw_audio, draw_sizes
from experiments.one_shot_students import MACS, ROWS
from experiments.one_shot_summary import Draw, LossCurve, loss_curves, main_draw, trained_curves
from hf_prunable.modeling.size import PARAMETERS
from hf_prunable.runtime.tables import markdown_table


# Row whose students show how much audio is needed.
AUDIO_ROW = "rounds"


def write_report(results: Sequence[dict[str, Any]], folder: Path, trained_results: str | None = None) -> None:
    """Writes `one_shot.md`, `one_shot.json`, `sizes.png` and, with several amounts of audio, `audio.png`.

    Args:
        results: Results on disk.
        folder: Output folder.
        trained_results: File `evidence.json` with students that were trained; `None` for none.
    """
    curves = loss_curves(results)
    draw = main_draw(curves)
    # Of the rows of one draw; each measure of the targets has its own table.
    main, macs = (
        [
            curve
            for curve in curves
            if ROWS[curve.row].measure == measure and (curve.draw == draw or curve.draw.audio is None)
        ]
        for measure in (PARAMETERS, MACS)
    )
    trained = trained_curves(trained_results) if trained_results else []
    audio = [curve for curve in curves if curve.row == AUDIO_ROW]
    values = {
        "held_out": sorted({name for result in results for name in result["held_out"]}),
        "results": [
            {name: value for name, value in result.items() if name not in ("held_out", "shape", "settings")}
            for result in results
        ],
    }
    save_result(folder, "one_shot", values, format_report(results, main, trained, audio, macs))
    draw_sizes(main, trained, folder / "sizes.png")
    if len({curve.draw for curve in audio}) > 1:
        draw_audio(audio, folder / "audio.png")


def format_report(
    results: Sequence[dict[str, Any]],
    main: Sequence[LossCurve],
    trained: Sequence[LossCurve],
    audio: Sequence[LossCurve],
    macs: Sequence[LossCurve] = (),
) -> str:
    """Formats the tables and notes on them as Markdown.

    Args:
        results: Results on disk.
        main: Curves of all rows on the same audio.
        trained: Curves of students that were trained.
        audio: Curves of one row on several kinds and amounts of audio.
        macs: Curves of the rows whose targets are multiply-accumulates.
    """
    draws = dict.fromkeys(curve.draw.label for curve in main if curve.draw.audio is not None)
    parts = ["# One-shot pruning", "## Loss by size"]
    if draws:
        parts.append(f"Calibration: {', '.join(draws)}.")
    parts.append(_loss_table("Student", [(curve.label, curve) for curve in (*main, *trained)]))
    if macs:
        parts += ["## Loss by multiply-accumulates", _loss_table("Units", [(curve.label, curve) for curve in macs])]
    if len(audio) > 1:
        parts += [
            f"## Loss by calibration audio, {ROWS[AUDIO_ROW].label}",
            _loss_table("Calibration", [(curve.draw.label, curve) for curve in audio]),
        ]
    if default := [result for result in results if result["row"] == AUDIO_ROW and _draw_label(result) in draws]:
        parts += [f"## Size and similarity, {ROWS[AUDIO_ROW].label}", _similarity_table(default)]
    return "\n\n".join([*parts, _format_notes(results, bool(trained))]) + "\n"


def _loss_table(title: str, curves: Sequence[tuple[str, LossCurve]]) -> str:
    targets = sorted({target for _, curve in curves for target in curve.losses})
    rows = []
    for label, curve in curves:
        cells = [_format_loss(curve, target) if target in curve.losses else "–" for target in targets]
        counts = sorted({len(losses) for losses in curve.losses.values()})
        seeds = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
        rows.append([label, *cells, seeds if curve.seeds - {None} else "–"])
    return markdown_table([title, *(f"{100 * target:g} % removed" for target in targets), "Seeds"], rows)


def _format_loss(curve: LossCurve, target: float) -> str:
    spread = curve.spread(target)
    return f"{curve.mean(target):.4f}" + ("" if spread is None else f" ± {spread:.4f}")


def _draw_label(result: dict[str, Any]) -> str:
    return Draw(result["audio"], result["num_crops"], result["calibration_seconds"]).label


def _similarity_table(results: Sequence[dict[str, Any]]) -> str:
    rows = []
    for target in sorted({result["target_sparsity"] for result in results}):
        found = [result for result in results if result["target_sparsity"] == target]
        parameters, macs = (np.mean([result[name] for result in found]) for name in ("num_parameters", "macs"))
        cosines = np.mean([result["cosine"] for result in found], axis=0)
        sizes = [f"{100 * target:g} %", f"{parameters:,.0f}", f"{macs / 1e9:.2f} G"]
        rows.append([*sizes, f"{cosines.mean():.4f}", f"{cosines[-1]:.4f}"])
    return markdown_table(
        ["Removed", "Parameters", "MACs, 10 s", "Cosine, mean of layers", "Cosine, last layer"], rows
    )


def _format_notes(results: Sequence[dict[str, Any]], has_trained: bool) -> str:
    settings = results[0]["settings"]
    held_out = results[0]["held_out"]
    notes = [
        f"- Loss: distillation loss on {results[0]['held_out_frames']:,} frames of {len(held_out)} held-out utterances "
        "of the folder `dataset_name`, without a projection; mean ± standard deviation over the random seeds of the "
        "calibration crops.",
        f"- Held out: of the utterances of at least {settings['crop_seconds']:g} s in the order of their file names, the "
        f"first of every {settings['held_out_every']}; `one_shot.json` lists them.",
    ]
    if has_trained:
        notes.append("- The last rows are trained students of the experiment `evidence`, measured on the same audio.")
    machines = dict.fromkeys(
        f"{result['machine']}{'. ' + result['remark'] if result['remark'] else ''}" for result in results
    )
    described = ", ".join(f"`{name}` {value}" for name, value in settings.items() if not name.startswith("run_"))
    return "\n".join(notes) + f"\n\nMachine: {'; '.join(machines)}\n\nSettings: {described}."
