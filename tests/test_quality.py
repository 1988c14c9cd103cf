"""What `scripts/make_quality.py` makes of what programs print: the tables of the documentation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
sys.path.insert(0, str(TOP / "scripts"))

import hours  # noqa: E402 - from the folder of scripts
import make_quality  # noqa: E402
import trials  # noqa: E402
from pages import fill  # noqa: E402

DRIFT = """J of first strokes, corrections | strokes obeyed | true: coarse, stays, moved by flow | still | moving
usiigaci_t98g 0.11 0.12 0.13 0.14 | 0.21 0.22 0.23 0.24 | 0.31 0.32 0.33 0.34 0.35 | 0.4 0.5 0.6 | 0.7 0.8 nan
mean, video 0.51 0.52 0.53 0.54 | 0.61 0.62 0.63 0.64 | 0.71 0.72 0.73 0.74 0.75 | 0.81 0.82 0.83 | 0.9 0.91 0.92
"""


def cells(table: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")]


def test_every_part_runs_a_program_that_is_there_on_the_given_stacks():
    """Commands name existing scripts, hold no placeholder, and are shown as people type them; trials are known ones."""
    for part in make_quality.parts(Path("/data/dev")).values():
        assert not [word for word in part.command if word.startswith(("DEV", "TRAIN"))]
        assert any(word.startswith(("/data/dev", "/data/train")) for word in part.command)
        assert "DEV" in part.shown or "TRAIN" in part.shown
        assert all(Path(word).exists() for word in part.command if word.endswith(".py"))
    assert {*make_quality.TRIALS, *make_quality.ENDINGS} <= set(trials._trials())


def test_a_benchmark_becomes_a_row_a_play_and_the_mean(tmp_path):
    """Plays are named as the pages name them, with J after each round; the last column is what no mask scores."""
    plays = [
        {"sequence": name, "method": "ivos", "empty_j": empty, "rounds": [{"j": j}, {"j": j + 0.1}]}
        for name, j, empty in (("fib25_em", 0.5, 0.25), ("dog", 0.7, 0.0))
    ]
    report = {"settings": {"rounds": 2}, "plays": plays, "means": [{"method": "ivos", "j": [0.6, 0.7]}]}
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "benchmark.json").write_text(json.dumps(report))
    assert cells(make_quality._played("", tmp_path)) == [
        ["J after round", "", "1", "2", "without any mask"],
        ["---"] * 5,
        ["neurites in EM", "ivos", "0.500", "0.600", "0.250"],
        ["dog", "ivos", "0.700", "0.800", "0.000"],
        ["**mean**", "ivos", "0.600", "0.700", "0.125"],
    ]


def test_seeds_become_rows_and_their_mean(tmp_path):
    """Plays with one seed are averaged over the stacks, and the seeds' means over all seeds."""
    plays = [
        {"seed": seed, "rounds": [{"j": j}, {"j": j + 0.1}]} for seed, j in ((1, 0.2), (1, 0.4), (2, 0.5), (2, 0.5))
    ]
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "benchmark.json").write_text(json.dumps({"settings": {"rounds": 2}, "plays": plays}))
    rows = cells(make_quality._seeds("", tmp_path))
    assert rows[2:] == [["1", "0.300", "0.400"], ["2", "0.500", "0.600"], ["**mean**", "0.400", "0.500"]]


def test_what_becomes_of_masks_is_taken_from_the_right_columns(tmp_path):
    """Means of each group and single stacks come from the columns that the script's first line names."""
    rows = cells(make_quality._drift(DRIFT, tmp_path))
    assert ["video", "0.51, 0.52, 0.53, 0.54", "0.61, 0.62, 0.63, 0.64"] in rows
    assert ["video", "0.73, 0.74, 0.75", "0.9, 0.91, 0.92", "0.81, 0.82, 0.83"] in rows
    assert ["cells in phase contrast", "0.31", "0.12", "0.14", "0.8"] in rows
    assert cells(make_quality._let_go(DRIFT, tmp_path))[-1] == ["video", "0.9, 0.91, 0.92", "0.81, 0.82, 0.83"]
    said = "dog                      0.1 0.2 0.3\nmean, video              0.4 0.5 0.6\n"
    assert cells(make_quality._true(said, tmp_path))[2:] == [
        ["dog", "0.1", "0.2", "0.3"],
        ["**video**", "0.4", "0.5", "0.6"],
    ]


def test_trials_and_adapting_become_tables(tmp_path):
    """Trials keep their differences, ended objects have a row a stack, and adapting says which models were kept."""
    made = tmp_path / "trials"
    made.mkdir()
    (made / "trials.txt").write_text(
        "Title.\n\ntrial  video J1  video J6  seconds\nas shipped  0.7 (+0.0)  0.8 (+0.0)  9\n"
    )
    assert cells(make_quality._trials("", tmp_path))[2:] == [["as shipped", "0.7 (+0.0)", "0.8 (+0.0)"]]
    for k, trial in enumerate(("as shipped", *make_quality.ENDINGS)):
        plays = {f"microscopy/{stack}": {"j": [0.1 * (k + 1)]} for stack in make_quality.ENDING_STACKS}
        name = trial.replace(" ", "_")
        (made / f"{name}_every1_rounds1_seed0.json").write_text(json.dumps(plays))
    assert cells(make_quality._endings("", tmp_path))[2] == ["tiny nuclei in 3-D", "0.200", "0.100", "0.300"]
    said = "dog: frames [1]\n\nstack  before\nfib25_em      0.500   0.600   yes     44\nmean   0.500   0.600   (load)\n"
    rows = cells(make_quality._adapt(said, tmp_path))
    assert rows[2] == ["neurites in EM", "0.500", "0.600", "kept", "44 s"]
    assert rows[3][:3] == ["**mean**", "0.500", "0.600"]


def test_weights_of_the_past_become_rows_with_what_they_went_through(tmp_path):
    """Each weights' scores stand beside the recipes and hours that the list has of them, in the list's order."""
    (tmp_path / "OUT").mkdir()
    lines = ["weights,hours,steps,microscopy J1,microscopy J3,video J1,video J3"]
    for k, weights in enumerate(reversed(make_quality.HISTORY)):
        commit, _, kind = weights.partition("@")[0].partition(":")
        lines.append(f"OUT/{kind}-{commit},1.0,7,0.1,0.2,0.3,{k / 10}")
    (tmp_path / "OUT" / "hours.csv").write_text("\n".join(lines) + "\n")
    rows = cells(make_quality._hours("", tmp_path))[2:]
    assert len(rows) == len(make_quality.HISTORY)
    assert rows[0] == ["7a89e28", "1, 2", "192 px", "20,000", "1.2", "0.300, 0.700", "0.100, 0.200"]
    assert rows[-1][-2] == "0.300, 0.000"


def test_weights_of_the_past_are_in_the_history(tmp_path):
    """All weights that are measured again are files of the repository's history that can be loaded."""
    commits = [weights.partition(":")[0] + "^{commit}" for weights in make_quality.HISTORY]
    if any(subprocess.run(["git", "cat-file", "-e", one], cwd=TOP, check=False).returncode for one in commits):
        pytest.skip("the repository's history is not here")
    points = [hours.Point.of(weights, tmp_path) for weights in make_quality.HISTORY]
    assert [point.hours for point in points] == [float(weights.split("@")[1]) for weights in make_quality.HISTORY]
    assert {point.model().size for point in points} == {192, 256}


def test_the_speed_of_training_is_taken_from_what_is_printed(tmp_path):
    """Steps of each region and number type become rows; a program that said nothing of them is an error."""
    said = (
        "clips, as they come: 61 ms of one core each\nclips, stills: 50 ms of one core each\n"
        "steps, 128 px, bfloat16, cpu: 1.37 s (1.36 s of one core); 8 clips a step keep 0.36 processes busy\n"
    )
    made = make_quality._training(said, tmp_path)
    assert "61 ms" in made
    assert cells(made)[2:] == [["128 px", "bfloat16", "1.37 s", "0.36"]]
    with pytest.raises(RuntimeError, match="nothing"):
        make_quality._training("", tmp_path)


def test_a_page_shows_the_picture_of_a_part_itself(tmp_path, monkeypatch):
    """What is filled in has command, table and day, and no picture: its address depends on the page's folder."""
    (tmp_path / "hours.md").write_text("### Hours\n\n`do`\n\n| a |\n\n![Hours](measured/hours.png)\n\n*Today.*\n")
    monkeypatch.setattr(fill, "FOLDER", tmp_path)
    assert fill.quality("hours") == "`do`\n\n| a |\n\n*Today.*"
