"""Every picture is drawn once, shows what it should, and changes nothing global."""

import re
import sys
from pathlib import Path
from time import process_time

import numpy as np
import pytest

from fastdil import theory
from fastdil.theory import Layer, Upsample

matplotlib = pytest.importorskip("matplotlib", reason="pictures need Matplotlib, the extra 'plot'")

agg = pytest.importorskip("matplotlib.backends.backend_agg")

GRIDDED = [Layer(3, dilation=2), Layer(3, dilation=4)]
PYRAMID = [Layer(2, dilation=d, padding="causal") for d in (1, 2, 4, 8)]


def saved(figure, path):
    figure.savefig(path, dpi=50)
    assert path.stat().st_size > 1000


@pytest.mark.parametrize("name", ["plot_coverage", "plot_paths", "plot_gridding", "plot_growth", "plot_schedule"])
@pytest.mark.parametrize("layers", [GRIDDED, PYRAMID, [Layer((3, 2), stride=(2, 1)), Layer((2, 3))]])
def test_drawn(name, layers, tmp_path):
    before = matplotlib.rcParams.copy()  # a plain read of all of them would load pyplot
    ax = getattr(theory, name)(layers)
    saved(ax.figure, tmp_path / "picture.png")
    assert ax.get_title()
    assert ax.get_xlabel().endswith("]")
    assert matplotlib.rcParams.copy() == before
    assert "matplotlib.pyplot" not in sys.modules


def test_compare_and_given_axes(tmp_path):
    saved(theory.plot_compare([Layer(3)] * 3, PYRAMID, names=("dense", "doubling")), tmp_path / "both.png")
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    assert theory.plot_coverage(GRIDDED, ax) is ax


def is_cut(figure) -> bool:
    """Whether anything that is drawn reaches beyond the figure."""
    figure.set_dpi(40)
    agg.FigureCanvasAgg(figure).draw()
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return drawn.x0 < 0 or drawn.y0 < 0 or drawn.x1 > width or drawn.y1 > height


LONG = [Layer(3, dilation=3 * 2**i) for i in range(9)]
WAVENET = [Layer(2, dilation=2**i) for i in range(12)]


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("plot_coverage", LONG),
        ("plot_coverage", WAVENET),
        ("plot_paths", LONG),
        ("plot_paths", [Layer(3)] * 40),
        ("plot_gridding", WAVENET[:6]),
        ("plot_gridding", GRIDDED),
        ("plot_growth", [Layer(3)] * 40),
        ("plot_schedule", LONG[:6]),
        ("plot_schedule", [Layer(3)] * 40),
    ],
)
def test_nothing_is_cut(name, layers):
    assert not is_cut(getattr(theory, name)(layers).figure)


def test_nothing_is_cut_side_by_side():
    many = {f"dilation {d}": [Layer(3, dilation=d)] * 4 for d in range(1, 8)}
    growth = theory.plot_growth(many)
    assert not is_cut(growth.figure)
    assert len({line.get_color() for line in growth.lines}) == 7
    two = theory.plot_compare(LONG, [Layer((3, 3))] * 2, ("thirty characters of a long one", "b"))
    assert not is_cut(two)
    assert two.axes[2].get_ylim() == two.axes[3].get_ylim()


def test_gaps_are_holes_only():
    """Many bars with gaps between them, drawn on few pixels, would show holes where there are none."""
    figure = theory.plot_coverage([Layer(3, dilation=3**i) for i in range(5)]).figure
    canvas = agg.FigureCanvasAgg(figure)
    figure.set_dpi(60)
    canvas.draw()
    box = figure.axes[0].get_window_extent()
    row = np.asarray(canvas.buffer_rgba())[int(figure.bbox.height - (box.y0 + box.y1) / 2), :, :3]
    blue = np.flatnonzero((row == (0, 0x72, 0xB2)).all(axis=1))
    comb = blue[blue < box.x1]
    assert len(comb) > 200
    assert (np.diff(comb) == 1).all()


def test_many_positions_are_drawn_quickly():
    start = process_time()
    for name in ("plot_coverage", "plot_paths"):
        getattr(theory, name)(WAVENET).figure.draw_without_rendering()
    theory.plot_schedule([Layer(3)] * 40).figure.draw_without_rendering()
    theory.plot_growth([Layer(3)] * 10_000)
    assert process_time() - start < 4  # about 1; minutes with one artist for each bar and each tap


def test_what_is_shown():
    comb = theory.plot_coverage(GRIDDED)
    assert [text.get_text() for text in comb.get_legend().get_texts()] == ["seen: 7", "holes: 6"]
    assert [bar.get_height() for bar in theory.plot_paths([Layer(3), Layer(3, dilation=2)]).containers[0]] == [
        1,
        1,
        2,
        1,
        2,
        1,
        1,
    ]
    assert "29.0% seen" in theory.plot_gridding(GRIDDED).get_title()
    growth = theory.plot_growth({"a": PYRAMID, "b": GRIDDED})
    assert [list(line.get_ydata()) for line in growth.lines] == [[2, 4, 8, 16], [5, 13]]
    assert "16 of 16 positions" in theory.plot_schedule(PYRAMID).get_title()


def test_refusals():
    with pytest.raises(ValueError, match="at most 4096 positions"):
        theory.plot_coverage([Layer(3, dilation=9999)])
    with pytest.raises(ValueError, match="no upsampling"):
        theory.plot_schedule([Upsample(2), Layer(3)])
    with pytest.raises(ValueError, match="at most 512 positions"):
        theory.plot_schedule([Layer(3, dilation=500)])
    with pytest.raises(ValueError, match="layers=41: expected at most 40 layers"):
        theory.plot_schedule([Layer(3)] * 41)
    for names in (3, "ab", ("a",), ("a", 2)):
        with pytest.raises(TypeError, match="names="):
            theory.plot_compare(GRIDDED, PYRAMID, names)
    with pytest.raises(ValueError, match="at most 1024"):
        theory.plot_gridding([Layer(3, dilation=600)])
    with pytest.raises(ValueError, match="at least one"):
        theory.plot_growth({})
    with pytest.raises(ValueError, match="at least one"):
        theory.plot_coverage([])


def test_pictures_of_the_chapter(tmp_path, monkeypatch):
    """The lines that the chapter shows above its pictures draw them."""
    text = (Path(__file__).parents[1] / "docs" / "theory.md").read_text()
    lines = re.findall(r"^>>> (theory\.plot_.*savefig.*)  # doctest: \+SKIP$", text, re.MULTILINE)
    (tmp_path / "docs" / "images").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for line in lines:
        exec(line, {"theory": theory, "Layer": Layer, "stack": lambda *ds: [Layer(3, dilation=d) for d in ds]})
    drawn = {path.name for path in (tmp_path / "docs" / "images").iterdir()}
    assert len(lines) == 6
    assert drawn == set(re.findall(r"\(images/(\w+\.png)\)", text))
    assert all(path.stat().st_size < 60_000 for path in (tmp_path / "docs" / "images").iterdir())
