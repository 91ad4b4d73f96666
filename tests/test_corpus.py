"""oneDNN's own dilated convolution shapes, for every method that supports them.

The list is not part of this repository. It is read from ``../shared/corpus`` where a checkout has one beside
it; `grid.py` covers the same classes (dilation beyond the input, negative right padding, padding beyond the
input).
"""

import math
import re
from functools import lru_cache
from pathlib import Path

import grid
import naive
import numpy as np
import pytest
from checks import ABLE, ROUNDING, assert_form, assert_within, forced

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus" / "benchdnn_dilated.txt"
#: Nominal multiply-accumulates above which channels and batch shrink; geometry and grouping stay.
BUDGET = 2_000_000

FIELD = re.compile(r"(mb|ic|oc|[iokspd][dhw]|g)(\d+)")


def read_fields(line: str) -> dict[str, int]:
    """The numbers of a descriptor like ``mb2ic16iw5kw3dw1n"name"``; an error where it cannot be read."""
    text = re.sub(r'n"[^"]*"$', "", line).replace("_", "")
    fields = {name: int(number) for name, number in FIELD.findall(text)}
    rebuilt = "".join(name + number for name, number in FIELD.findall(text))
    if rebuilt != text or not fields:
        raise ValueError(f"line {line!r}: expected a benchdnn descriptor")
    return fields


def _axis_values(fields: dict[str, int], letter: str, axes: str, default: int | None) -> list[int | None]:
    """One value per axis: an axis that is not given copies a given one (w from h from d)."""
    given = [axis for axis in "dhw" if letter + axis in fields]
    values = []
    for axis in axes:
        before = [g for g in given if g <= axis]
        source = axis if axis in given else (before[-1] if before else (given[0] if given else None))
        values.append(fields[letter + source] if source else default)
    return values


def read_case(line: str, deconvolution: bool) -> grid.Case:
    """The convolution that a descriptor means, with dilation counted from 1 and explicit right padding."""
    f = read_fields(line)
    given = {axis for axis in "dhw" for letter in "iok" if letter + axis in f}
    # A lone depth is a cube, a lone height a square, a lone width a signal.
    axes = "dhw" if "d" in given else "hw" if "h" in given else "w"
    size = _axis_values(f, "i", axes, None)
    kernel = _axis_values(f, "k", axes, 1)
    stride = _axis_values(f, "s", axes, 1)
    dilation = [d + 1 for d in _axis_values(f, "d", axes, 0)]
    left = _axis_values(f, "p", axes, 0)
    out = _axis_values(f, "o", axes, None)
    channels, outputs = f["ic"], f["oc"]
    if deconvolution:  # the convolution that it transposes: its input is the deconvolution's output
        size, out, channels, outputs = out, size, outputs, channels
    right = []
    for i, o, k, s, d, p in zip(size, out, kernel, stride, dilation, left, strict=True):
        reach = (k - 1) * d + 1
        right.append(p if o is None else (o - 1) * s + reach - i - p)
    groups = f.get("g", 1)
    shape = (f.get("mb", 2), channels, *size)
    return grid.Case(
        "corpus",
        shape,
        (outputs, channels // groups, *kernel),
        stride=tuple(stride),
        padding=tuple(zip(left, right, strict=True)),
        dilation=tuple(dilation),
        groups=groups,
    )


def shrink(case: grid.Case) -> grid.Case:
    """The same geometry and kind of grouping, with fewer channels and images above the budget."""
    batch, groups = case.x_shape[0], case.groups
    per_in, per_out = case.w_shape[1], case.w_shape[0] // groups
    out = naive.out_size(case.x_shape[2:], case.w_shape[2:], case.stride, case.dilation, case.padding)
    pixels = math.prod(out) * math.prod(case.w_shape[2:])
    while batch * groups * per_in * per_out * pixels > BUDGET:
        if batch > 1:
            batch = -(-batch // 4)
        elif per_in * per_out > 1:
            per_in, per_out = -(-per_in // 2), -(-per_out // 2)
        elif groups > 2:
            groups = -(-groups // 2)
        else:
            break
    return grid.Case(
        **{
            **case.__dict__,
            "x_shape": (batch, groups * per_in, *case.x_shape[2:]),
            "w_shape": (groups * per_out, per_in, *case.w_shape[2:]),
            "groups": groups,
        }
    )


def corpus_lines() -> list[tuple[str, bool]]:
    """All descriptors and whether each is a deconvolution; empty where the corpus is absent."""
    if not CORPUS.exists():
        return []
    lines, deconvolution = [], False
    for line in CORPUS.read_text().splitlines():
        if line.startswith("## "):
            deconvolution = " deconv/" in line
        elif line.strip() and not line.startswith("#"):
            lines.append((line.strip(), deconvolution))
    return lines


LINES = corpus_lines()

needs_corpus = pytest.mark.skipif(not LINES, reason=f"the corpus is not here: {CORPUS.name} is read from ../shared")


def test_descriptors_by_hand():
    """The rules of the format, on one line of each kind."""
    case = read_case('mb20ic4ih8iw8oc6oh4ow8kh3kw3sh2sw1ph1pw1dh1dw0n"x:11"', False)
    assert case == grid.Case(
        "corpus", (20, 4, 8, 8), (6, 4, 3, 3), stride=(2, 1), padding=((1, 2), (1, 1)), dilation=(2, 1)
    )
    case = read_case("mb20ic4ih8oc6oh3kh3sh2ph1dh1", False)  # the width copies the height
    assert case == grid.Case(
        "corpus", (20, 4, 8, 8), (6, 4, 3, 3), stride=(2, 2), padding=((1, 0), (1, 0)), dilation=(2, 2)
    )
    case = read_case('ic16oc16_kw3_iw13_ow1_sw2_pw1_dw5n"right(-1)"', False)
    assert case == grid.Case("corpus", (2, 16, 13), (16, 16, 3), stride=(2,), padding=((1, -1),), dilation=(6,))
    case = read_case("g2mb3ic4iw5oc8ow9kw3dw1", True)
    assert case == grid.Case("corpus", (3, 8, 9), (4, 4, 3), stride=(1,), padding=((0, 0),), dilation=(2,), groups=2)
    with pytest.raises(ValueError, match="expected"):
        read_fields("mb2ic3zz9")


@needs_corpus
def test_every_line_is_read():
    assert len(LINES) > 500
    assert sum(deconvolution for _, deconvolution in LINES) > 50
    for line, deconvolution in LINES:
        case = read_case(line, deconvolution)
        f = read_fields(line)
        for axis in "dhw":  # the geometry gives the output that the descriptor states
            if "o" + axis in f and "i" + axis in f:
                at = {"d": -3, "h": -2, "w": -1}[axis]
                out = naive.out_size(case.x_shape[2:], case.w_shape[2:], case.stride, case.dilation, case.padding)
                assert out[at] == f[("i" if deconvolution else "o") + axis], line


@lru_cache(maxsize=8)
def prepared(case, dtype):
    x, w, bias = grid.data(case, dtype, "small")
    truth = naive.conv(x, w, bias, **case.args)
    return x, w, bias, truth, naive.bound(dtype, x, w, bias, **case.args)


@needs_corpus
@pytest.mark.parametrize("method", ABLE)
@pytest.mark.parametrize("case", dict.fromkeys(shrink(read_case(*line)) for line in LINES), ids=str)
def test_corpus(case, method):
    x, w, bias, truth, limit = prepared(case, "float32")
    y = forced(method, x, w, bias, **case.args)
    if y is None:
        return
    assert_form(y, truth, "float32")
    if method in ROUNDING:
        assert_within(y, truth, limit)
    else:
        np.testing.assert_array_equal(y, truth)
