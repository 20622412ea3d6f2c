"""SUPERB's scores against published ones, and the table."""

import json
import subprocess
import sys

import pytest

from hf_prunable.superb import METRICS, PUBLISHED, format_table, main, plain_mean, superb_score


OWN = {**PUBLISHED["DPWavLM"], "parameters": 26.44, "KS": 95.5}


def test_wavlm_base():
    assert round(superb_score(PUBLISHED["WavLM base"])) == 1019
    assert round(plain_mean(PUBLISHED["WavLM base"]), 1) == 81.9


def test_ends_of_the_scale():
    assert superb_score({name: metric.filterbank for name, metric in METRICS.items()}) == 0
    assert superb_score({name: metric.best for name, metric in METRICS.items()}) == pytest.approx(1000)


@pytest.mark.parametrize("score", (superb_score, plain_mean))
@pytest.mark.parametrize("name", METRICS)
def test_better_is_more(score, name):
    metric, base = METRICS[name], PUBLISHED["WavLM base"]
    better = {**base, name: base[name] + (-0.1 if metric.is_error else 0.1)}
    assert score(better) > score(base)


def test_slot_filling_is_one_task_of_ten():
    """A tenth of the way from filterbanks to the best, in one metric."""
    base = PUBLISHED["WavLM base"]
    gains = {}
    for name in ("KS", "SF-F1", "SF-CER"):
        step = (METRICS[name].best - METRICS[name].filterbank) / 10
        gains[name] = superb_score({**base, name: base[name] - step}) - superb_score(base)
    assert gains == {"KS": pytest.approx(-10), "SF-F1": pytest.approx(-5), "SF-CER": pytest.approx(-5)}


@pytest.mark.parametrize(
    ("change", "message"),
    (
        ({"KS": None, "SD": None}, "Missing: KS, SD. SUPERB's metrics are KS, IC, PR"),
        ({"SF": 88.0}, "Unknown: 'SF'.*SF-F1, SF-CER"),
        ({"KS": 100.01}, r"KS \(accuracy, in percent\) must be a number, 0 to 100, but is 100.01"),
        ({"SV": -0.1}, r"SV \(equal error rate.*0 to 100, but is -0.1"),
        ({"PR": float("nan")}, "PR .*0 or more, but is nan"),
        ({"ASR": "6.2"}, "ASR .*but is '6.2'"),
        ({"KS": True}, "KS .*but is True"),
        ({"parameters": -1}, r"parameters \(in millions\)"),
        ({name: value / 100 for name, value in PUBLISHED["DPWavLM"].items() if name in METRICS}, "Give percent"),
    ),
)
@pytest.mark.parametrize("score", (superb_score, plain_mean))
def test_wrong_results_are_refused(score, change, message):
    results = {name: value for name, value in {**OWN, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        score(results)


def test_error_rates_may_pass_100():
    assert superb_score({**OWN, "ASR": 104.0}) < superb_score(OWN)


def test_table():
    partial = {"KS": 95.0, "SV": 7.25}
    lines = format_table({"mine": OWN, "half": partial}).splitlines()
    assert lines[0].startswith(
        "| model | params (M) | KS | IC | PR | ASR | ER | QbE | SF-F1 | SF-CER | SID | SV | SD |"
    )
    widths = {line.count("|") for line in lines[: 4 + len(PUBLISHED)]}
    assert len(widths) == 1
    assert lines[2].startswith("| **mine** | 26.4 | 95.50 | 98.58 |")
    assert lines[2].endswith(f"| {superb_score(OWN):.0f} | {plain_mean(OWN):.1f} |")
    assert lines[3].replace(" ", "") == "|**half**||95.00|||||||||7.25||||"
    assert next(line for line in lines if line.startswith("| WavLM base |")).endswith("| 1019 | 81.9 |")
    assert "PR, ASR, SF-CER, SV, SD: lower" in lines[-1]


@pytest.mark.parametrize(
    ("results", "message"),
    (
        ({}, "There are no results"),
        ({"WavLM base": OWN}, "The table has 'WavLM base' already"),
        ({"mine": {"SF": 1.0}}, "mine: Unknown: 'SF'"),
        ({"mine": {"parameters": 20}}, "mine: Missing: KS, IC"),
    ),
)
def test_wrong_tables_are_refused(results, message):
    with pytest.raises(ValueError, match=message):
        format_table(results)


def test_command(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"mine": OWN}))
    result = subprocess.run([sys.executable, "-m", "hf_prunable.superb", path], capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout == format_table({"mine": OWN})


@pytest.mark.parametrize(
    ("content", "message"),
    (
        ('{"mine"', "results.json, line 1: Expecting"),
        ('{"KS": 96.1}', "results.json must hold"),
        ('{"mine": {"SF": 3}}', "mine: Unknown: 'SF'"),
        (None, "No such file"),
    ),
)
def test_command_on_wrong_files(tmp_path, capsys, content, message):
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SystemExit) as exit:
        main([str(path)])
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
