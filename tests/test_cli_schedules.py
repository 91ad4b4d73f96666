"""`fastdil design` and `fastdil analyse`: tables, pictures, refusals."""

import sys

import pytest

from fastdil.cli import main


def test_design(capsys):
    assert main(["design", "--kernel", "3", "--receptive-field", "27", "--count", "2"]) == 0
    head, first = capsys.readouterr().out.splitlines()  # no other three layers reach 27
    assert head.split() == ["layers", "receptive", "field", "variation", "proven", "best", "dilations"]
    assert first.split() == ["3", "27", "0.0000", "yes", "1", "3", "9"]
    assert main(["design", "--kernel", "3", "--receptive-field", "20", "--count", "2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_analyse_with_holes(capsys):
    assert main(["analyse", "2", "4", "--kernel", "3"]) == 0
    printed = capsys.readouterr().out
    for text in ("7 of 13 (53.8%), in 2-D 29.0%", "5 13\n", "1 3 5 7 9 11\n", "1 3 (receptive field 9)"):
        assert text in printed


def test_analyse_and_plot(capsys, tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need Matplotlib, the extra 'plot'")
    path = tmp_path / "out.png"
    assert main(["analyse", "1", "2", "4", "8", "--kernel", "3", "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "none\n" in printed
    assert "nearest" not in printed


@pytest.mark.parametrize("columns", [70, 100])
@pytest.mark.parametrize(
    "arguments",
    [
        ["analyse", *["2", "4", "8", "16", "32", "64", "128", "256", "512"] * 4],
        ["design", "--receptive-field", "300", "--max-dilation", "2"],
    ],
)
def test_tables_keep_to_the_terminal(capsys, monkeypatch, arguments, columns):
    arguments = [*arguments, "--kernel", "3"]
    assert main(arguments) == 0
    whole = capsys.readouterr().out
    assert max(map(len, whole.splitlines())) > columns  # a file or a program gets one line per row
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(arguments) == 0
    narrow = capsys.readouterr().out
    assert max(map(len, narrow.splitlines())) <= columns
    assert narrow.split() == whole.split()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["design", "--kernel", "3"], "--receptive-field"),
        (["design", "--kernel", "3", "--receptive-field", "1000", "--layers", "6"], "at least 7 layers"),
        (["design", "--kernel", "3", "--receptive-field", "1000", "--exact"], "999 or 1001"),
        (["design", "--kernel", "1", "--receptive-field", "9"], "kernel_size=1"),
        (["design", "--kernel", "3", "--receptive-field", "1e3"], "expected an integer >= 1, not '1e3'"),
        (["design", "--kernel", "3", "--receptive-field", "99999999999"], "expected at most 16777216"),
        (["analyse", "--kernel", "3"], "D"),
        (["analyse", "1", "2"], "--kernel"),
        (["analyse", "1.5", "--kernel", "3"], "expected an integer >= 1, not '1.5'"),
        (["analyse", "-1", "--kernel", "3"], "D"),
        (["analyse", "1000000000", "--kernel", "3"], "at most 268435456 positions"),
        (["analyse", "1", "0", "--kernel", "3"], "expected an integer >= 1, not '0'"),
        (
            ["analyse", "1", "--kernel", "3", "--plot", "no/such/folder/a.png"],
            "--plot: expected a file in an existing folder",
        ),
        (["analyse", "1", "--kernel", "3", "--plot", "a.xyz"], "xyz"),
    ],
)
def test_refusals(capsys, arguments, text):
    if arguments[-1] == "a.xyz":
        pytest.importorskip("matplotlib", reason="pictures need Matplotlib, the extra 'plot'")
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert text in captured.err


def test_without_matplotlib(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["analyse", "1", "--kernel", "3", "--plot", "a.png"]) == 2
    assert "fastdil[plot]" in capsys.readouterr().err
