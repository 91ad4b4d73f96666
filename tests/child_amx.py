"""The method `amx` against the oracle, at every precision. A pytest file that runs in a process of its own.

``tests/test_amx.py`` runs it with the emulated tile unit everywhere, and with the real one where the CPU has it:
``AMX_UNIT`` in the environment says which.
"""

from __future__ import annotations

import dataclasses
import os

import grid
import naive
import numpy as np
import pytest
from checks import assert_within, row

import fastdil
from fastdil import hardware, jit
from fastdil.addresses import address_of
from fastdil.algorithms import amx_layout
from fastdil.kernels import peak, split, tile_unit
from fastdil.problem import Problem

UNIT = os.environ.get("AMX_UNIT", "")
if UNIT == "emulated":  # beside the vectors that every CPU with tiles has
    hardware._machine = dataclasses.replace(hardware.machine(), isa="avx512", amx=UNIT)
elif UNIT == "native":
    assert hardware.amx_refusal() is None  # asks for the right to use the tiles

PRECISIONS = ("medium", "high", "highest")
every_precision = pytest.mark.parametrize("precision", PRECISIONS)

#: Where tiles of samples are loaded from (`amx_layout.WAYS`).
DIRECT, COPIED = (tuple(way for way in amx_layout.WAYS if way[0] == is_direct) for is_direct in (True, False))

#: A layer that is worth the tiles, small enough for the emulation.
X_SHAPE, W_SHAPE, ARGS = (2, 33, 12, 37), (36, 33, 3, 3), {"dilation": 4, "padding": 4}


def limit(precision: str, x, w, bias=None, **args) -> float:
    """The contract's largest error."""
    share = {"medium": 2.0**-6, "high": 2.0**-14, "highest": 8 * 2.0**-23}[precision]
    return share * naive.magnitude(x, w, bias, **args)


def numbers(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Input and weights of the layer."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal(X_SHAPE).astype("f4"), rng.standard_normal(W_SHAPE).astype("f4")


# ---------------------------------------------------------------------------------------------------------
# the unit
# ---------------------------------------------------------------------------------------------------------


def bfloat16(values: np.ndarray) -> np.ndarray:
    """Rounded to nearest even, by way of the remainder."""
    high = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    step = np.spacing(np.abs(high)) * 2.0**16
    low = np.abs(values - high)
    is_odd = (high.view(np.uint32) >> 16) & 1 == 1
    up = (low > step / 2) | ((low == step / 2) & is_odd)
    return np.where(up, high + np.copysign(step, high), high).astype(np.float32)


def product(a: np.ndarray, b: np.ndarray, total: np.ndarray) -> np.ndarray:
    """One instruction, after Intel's manual: `a` is 16 x 32, `b` 32 x 16. Sums of two floats are exact in float64."""
    chains = np.zeros((2, 16, 16), np.float32)
    for k in range(32):
        exact = np.float64(a[:, k, None]) * b[None, k] + chains[k % 2]
        chains[k % 2] = exact.astype(np.float32)
    return total + (chains[0] + chains[1])


def compiled(parts: int, times: int = 1):
    """A function that splits 2 steps of 32 lines of both, multiplies them, and adds that again and again."""
    unit, stamp = UNIT, jit.source_stamp()

    def multiply(weights, samples, target, tiles):
        stamp  # noqa: B018 - a closure cell in the cache key
        extent = target + 4096
        numbers = offsets = extent + 128  # one tap: number 0 at offset 0
        split.clear_extent(extent)
        for step in range(2):
            source, to = step * 4096, 8192 + step * parts * 2048
            split.split_weights(parts, weights + source, weights + to, extent)
            for half in range(2):
                split.split_samples(parts, samples + source + half * 64, samples + to + half * 1024, 2048, extent)
        tile_unit.open_tiles(unit, tiles)
        for resume in range(times):
            tile_unit.multiply_tiles(
                unit, parts, tiles, samples + 8192, 1024, 2048, offsets, weights + 8192, numbers, 1, 2, target, resume
            )  # fmt: skip
        tile_unit.close_tiles(unit, tiles)
        split.write_extent(extent, extent)

    return jit.serial(multiply, f"test_multiply_{parts}part_{times}times_{UNIT}", 4)


@pytest.mark.parametrize(("parts", "times"), [(1, 1), (1, 3), (3, 1), (2, 2)])
def test_a_product_of_tiles_has_the_bits_of_the_manual(parts, times):
    rng = np.random.default_rng(parts)
    # Lines are 32 outputs or pixels of one term.
    weights, samples = (rng.standard_normal((64, 32)).astype("f4") for _ in range(2))
    room = [np.concatenate([lines.ravel(), np.zeros(3 * 2048, np.float32)]) for lines in (weights, samples)]
    target, tiles = np.zeros(1024 + 32 + 2, np.float32), np.zeros(8192 + 64, np.uint8)
    compiled(parts, times)(*(address_of(array) for array in (*room, target)), address_of(tiles))

    of_both = []
    for values in (weights, samples):
        left, split_values = values, []
        for _ in range(parts):
            split_values.append(bfloat16(left))
            left = left - split_values[-1]
        assert parts < 3 or not left.any()
        of_both.append(split_values)
    expected = np.zeros((32, 32), np.float32)
    for phase in tile_unit.PHASES[parts] * times:
        for step in range(2):
            terms = slice(32 * step, 32 * step + 32)
            for of_weights, of_samples in phase:
                a, b = of_both[1][of_samples][terms].T, of_both[0][of_weights][terms]
                for i in (slice(16), slice(16, 32)):
                    for j in (slice(16), slice(16, 32)):
                        expected[i, j] = product(a[i], b[:, j], expected[i, j])
    np.testing.assert_array_equal(target[:1024].reshape(32, 32), expected)
    doubled, less = target[1024:1026].view(np.uint32)
    magnitudes = np.abs(np.concatenate([weights, samples])).view(np.uint32)
    assert (doubled // 2, (int(less) + 1) // 2) == (magnitudes.max(), magnitudes.min())


def test_denormal_numbers_count_as_zeros():
    """In the emulation as in the unit: inputs, and every result."""
    room = [np.zeros(2048 + 2048, np.float32) for _ in range(2)]
    target, tiles = np.zeros(1024 + 32 + 2, np.float32), np.zeros(8192 + 64, np.uint8)
    weights, samples = (lines.reshape(-1, 32) for lines in room)
    for output, (weight, sample) in enumerate([(2.0**-130, 2.0**100), (2.0**-70, 2.0**-60), (2.0**-60, 2.0**-60)]):
        weights[output, output], samples[output] = weight, sample
    compiled(1)(*(address_of(array) for array in (*room, target)), address_of(tiles))
    assert target[:1024].reshape(32, 32)[0, :3].tolist() == [0, 0, 2.0**-120]


# ---------------------------------------------------------------------------------------------------------
# results
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", grid.BLOCKS, ids=str)
def test_blocks(case):
    """Small integers exactly, with a bias and an activation; random numbers within the bound of each precision."""
    x, w, bias = grid.data(case, "float32", "small")
    truth = np.maximum(naive.conv(x, w, bias, **case.args), 0)
    for precision in PRECISIONS:
        y = fastdil.conv(x, w, bias, method="amx", precision=precision, activation="relu", **case.args)
        np.testing.assert_array_equal(y, truth)
    x, w, bias = grid.data(case, "float32")
    truth = naive.conv(x, w, bias, **case.args)
    for precision in PRECISIONS:
        y = fastdil.conv(x, w, bias, method="amx", precision=precision, **case.args)
        assert_within(y, truth, limit(precision, x, w, bias, **case.args))


@pytest.mark.parametrize("is_direct", [False, True])
@pytest.mark.parametrize("case", grid.BLOCKS, ids=str)
def test_small_windows(case, is_direct, monkeypatch):
    """Many boxes and several windows for each, of tiles in the window or copied: exact on small integers."""
    monkeypatch.setattr(amx_layout, "WAYS", DIRECT if is_direct else COPIED)
    for share in ("_WINDOW_SHARE", "_SINGLE_WINDOW_SHARE", "_SUMS_SHARE", "_KEPT_SHARE"):
        monkeypatch.setattr(amx_layout, share, 0.005)
    amx_layout.layout_of.cache_clear()
    x, w, bias = grid.data(case, "float32", "small", seed=1)
    truth = naive.conv(x, w, bias, **case.args)
    for precision in PRECISIONS:
        plan = fastdil.plan(w, bias, method="amx", precision=precision, **case.args)
        np.testing.assert_array_equal(plan(x), truth)
    amx_layout.layout_of.cache_clear()


@pytest.mark.parametrize("tasks", [1, 2])
@pytest.mark.parametrize("is_direct", [False, True])
@pytest.mark.parametrize(
    ("x_shape", "w_shape", "args"),
    [
        ((2, 33, 150), (20, 33, 3), {"dilation": 7, "padding": 7}),
        ((1, 64, 301), (70, 64, 2), {"dilation": 16, "padding": ((-3, 40),), "padding_mode": "reflect"}),
        ((1, 40, 41, 35), (33, 40, 3, 3), {"dilation": 5, "padding": 5}),
        ((1, 64, 23, 40), (48, 32, 4, 3), {"dilation": (2, 9), "padding": 12, "groups": 2, "stride": (1, 2)}),
        ((1, 36, 50, 17), (16, 36, 5, 1), {"dilation": 3, "padding": (0, 8), "padding_mode": "circular"}),
        ((2, 17, 13, 9, 20), (16, 17, 3, 2, 3), {"dilation": 2, "padding": (2, 0, 1)}),
    ],
    ids=str,
)
def test_boxes_in_a_row(x_shape, w_shape, args, is_direct, tasks, monkeypatch):
    """Windows that take over what the one before holds: exact on small integers."""

    def boxes(self, region, chunk, least):
        sizes = list(self._whole(region).sizes)
        whole, size = sizes[self.axis], self.problem.dilation[self.axis] + 1
        sizes[self.axis] = min(size, whole)
        yield amx_layout.Box(*sizes, -(-whole // size // tasks))

    monkeypatch.setattr(amx_layout, "WAYS", ((is_direct, True),))
    monkeypatch.setattr(amx_layout.Layout, "_boxes", boxes)
    rng = np.random.default_rng(3)
    x, w = rng.integers(-3, 4, x_shape).astype("f4"), rng.integers(-3, 4, w_shape).astype("f4")
    truth = naive.conv(x, w, **args)
    for precision in PRECISIONS:
        amx_layout.layout_of.cache_clear()
        layout = amx_layout.layout_of(Problem.create(x_shape, w_shape, precision=precision, **args), 2)
        assert max(box.in_row for box in layout.boxes) > 3 - tasks
        np.testing.assert_array_equal(fastdil.conv(x, w, method="amx", precision=precision, threads=2, **args), truth)
    amx_layout.layout_of.cache_clear()


@every_precision
@pytest.mark.parametrize("name", ["positive", "alternating", "uneven channels", "sparse", "one tap", "ties"])
def test_hard_data(name, precision):
    x, w = numbers(3)
    if name == "positive":
        x, w = abs(x), abs(w)
    elif name == "alternating":
        x = abs(x) * np.where(np.arange(X_SHAPE[-1]) % 2, -1, 1).astype("f4")
    elif name == "uneven channels":
        x = x * np.float32(10.0) ** np.linspace(-11, 11, X_SHAPE[1], dtype="f4")[:, None, None]
    elif name == "sparse":
        x = np.where(np.random.default_rng(4).random(X_SHAPE) < 0.02, x, 0).astype("f4")
    elif name == "one tap":
        w[..., :, [0, 2]] = 0
    elif name == "ties":  # half a digit beyond the first part, and again beyond the second
        x, w = np.full(X_SHAPE, 1 + 2.0**-8 + 2.0**-17, "f4"), np.full(W_SHAPE, 1 + 2.0**-8 + 2.0**-17, "f4")
    y = fastdil.conv2d(x, w, method="amx", precision=precision, **ARGS)
    assert_within(y, naive.conv(x, w, **ARGS), limit(precision, x, w, **ARGS))


@pytest.mark.parametrize("channels", [16, 192, 600, 3000])
def test_equal_terms_stay_within_the_bound_of_the_highest_precision(channels):
    """Rounding errors of equal terms all point the same way: 64 different products, each summed many times."""
    values = np.random.default_rng(channels).uniform(1, 2, (2, 64)).astype("f4")
    x, w = np.repeat(values[0][None], channels, axis=0), np.repeat(values[1][:, None], channels, axis=1)[..., None]
    y = fastdil.conv1d(x, w, method="amx")
    truth = channels * np.float64(values[1])[:, None] * values[0]
    assert np.max(np.abs(y - truth) / truth) <= 8 * 2.0**-23


def test_the_highest_precision_errs_little_more_than_im2col():
    for shape, taps in (((1, 64, 700), 3), ((1, 600, 90), 3)):
        rng = np.random.default_rng(taps)
        x, w = rng.standard_normal(shape).astype("f4"), rng.standard_normal((33, shape[1], taps)).astype("f4")
        truth = naive.conv(x, w)
        amx, im2col = (
            np.sqrt(np.mean((fastdil.conv1d(x, w, method=method) - truth) ** 2)) for method in ("amx", "im2col")
        )
        assert amx <= 1.5 * im2col


@every_precision
def test_threads_batches_and_layouts_do_not_change_a_bit(precision):
    rng = np.random.default_rng(8)
    x, w = rng.standard_normal((5, *X_SHAPE[1:])).astype("f4"), numbers()[1]
    args = {"method": "amx", "precision": precision, **ARGS}
    whole = fastdil.conv2d(x, w, threads=1, **args)
    for threads in (2, 3):
        np.testing.assert_array_equal(fastdil.conv2d(x, w, threads=threads, **args), whole)
    parts = [fastdil.conv2d(part, w, **args) for part in (x[:2], x[2:3], x[3:])]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(fastdil.conv2d(np.asfortranarray(x), w, **args), whole)
    plan = fastdil.plan(w, **args)
    for _ in range(2):
        np.testing.assert_array_equal(plan(x), whole)


@every_precision
@pytest.mark.parametrize("shape", [(36, 33, 5, 5), (33, 70, 1, 30)], ids=str)
def test_no_bit_of_a_long_reduction_depends_on_threads_batches_or_strips(shape, precision, monkeypatch):
    """More taps than a block of the reduction, some of which a region leaves out."""
    rng = np.random.default_rng(9)
    x, w = rng.standard_normal((3, shape[1], 9, 37)).astype("f4"), rng.standard_normal(shape).astype("f4")
    padding = tuple(2 * (taps - 1) for taps in shape[2:])
    args = {"method": "amx", "precision": precision, "dilation": 4, "padding": padding}
    results = []
    for way, threads, batches in (DIRECT, 1, [3]), (COPIED, 3, [3]), (DIRECT + COPIED, 2, [1, 2]):
        monkeypatch.setattr(amx_layout, "WAYS", way)
        amx_layout.layout_of.cache_clear()
        parts = np.split(x, np.cumsum(batches)[:-1])
        results.append(np.concatenate([fastdil.plan(w, threads=threads, **args)(part) for part in parts]))
    amx_layout.layout_of.cache_clear()
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    assert_within(
        results[0], naive.conv(x, w, dilation=4, padding=padding), limit(precision, x, w, dilation=4, padding=padding)
    )


@every_precision
@pytest.mark.parametrize("size", [20, 33, 65, 128])
def test_regions_do_not_depend_on_threads_and_batch(size, precision):
    """Which taps share a block of the reduction depends on them."""
    plans = [
        amx_layout.layout_of(
            Problem.create((batch, 256, size, size), (256, 256, 5, 5), padding=8, dilation=4, precision=precision),
            threads,
        ).plan
        for batch in (1, 3, 16)
        for threads in (1, 2, 5)
    ]
    assert all(plan == plans[0] for plan in plans)


# ---------------------------------------------------------------------------------------------------------
# data that it leaves to other methods
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3.4e38, 1e31, 1e-31, 1e-40])
@pytest.mark.parametrize("where", ["x", "w"])
def test_untame_numbers_are_refused_and_stay_local_in_auto(where, value):
    x, w = numbers(5)
    (x if where == "x" else w)[1, 2, 1, 1] = value
    with pytest.raises(ValueError, match="amx"):
        fastdil.conv2d(x, w, method="amx", precision="medium", **ARGS)
    plan = fastdil.plan(w, precision="medium", threads=1, **ARGS)
    assert plan.explain(x.shape).chosen == "amx"
    automatic, direct = plan(x), fastdil.conv2d(x, w, method="direct", **ARGS)
    np.testing.assert_array_equal(np.isfinite(automatic), np.isfinite(direct))
    finite = np.isfinite(direct)
    scale = np.abs(direct[finite]).max()
    assert_within(automatic[finite], direct[finite], 2.0**-6 * scale)


@pytest.mark.parametrize(("x_scale", "w_scale"), [(2.0**-60, 2.0**-60), (2.0**65, 2.0**62)])
def test_products_that_underflow_or_overflow_are_refused(x_scale, w_scale):
    x, w = numbers(6)
    with pytest.raises(ValueError, match=r"amx.*flow"):
        fastdil.conv2d(x * np.float32(x_scale), w * np.float32(w_scale), method="amx", **ARGS)


@every_precision
@pytest.mark.parametrize(("x_scale", "w_scale"), [(2.0**-48, 2.0**-48), (2.0**-100, 2.0**4), (2.0**98, 2.0**17)])
def test_just_within_what_is_refused_the_bound_holds(x_scale, w_scale, precision):
    rng = np.random.default_rng(6)
    x, w = (
        (rng.uniform(1, 2, shape) * rng.choice([-scale, scale], shape)).astype("f4")
        for shape, scale in ((X_SHAPE, x_scale), (W_SHAPE, w_scale))
    )
    y = fastdil.conv2d(x, w, method="amx", precision=precision, **ARGS)
    assert_within(y, naive.conv(x, w, **ARGS), limit(precision, x, w, **ARGS))


def test_nothing_is_written_where_it_refuses():
    x, w = numbers(7)
    out = np.full((2, 36, 12, 37), 7, "f4")
    x[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="finite input"):
        fastdil.conv2d(x, w, method="amx", precision="medium", out=out, **ARGS)
    assert (out == 7).all()


def test_what_no_tap_reads_does_not_matter_and_zeros_are_tame():
    x, w = numbers(8)
    x[:, :, 1::2], x[:, :, :, 1::2] = np.nan, np.inf
    y = fastdil.conv2d(x, w[..., :1, :1], stride=2, method="amx")
    assert_within(y, naive.conv(np.where(np.isfinite(x), x, 0), w[..., :1, :1], stride=2), 1e-3)
    assert not fastdil.conv2d(np.zeros_like(x), w, method="amx", **ARGS).any()
    assert not fastdil.conv2d(numbers()[0], np.zeros_like(w), method="amx", **ARGS).any()


# ---------------------------------------------------------------------------------------------------------
# what it says
# ---------------------------------------------------------------------------------------------------------

BIG = ((4, 256, 65, 65), (256, 256, 3, 3))


@pytest.mark.parametrize(("precision", "taps"), [("medium", 3), ("medium", 7), ("high", 7)])
def test_it_is_chosen_for_large_layers_at_the_lower_precisions(precision, taps):
    """With three products, only where minimal filtering does not save as many."""
    x_shape, w_shape = BIG
    why = fastdil.explain(x_shape, (*w_shape[:2], taps, taps), precision=precision, padding=2, dilation=2)
    assert why.chosen == "amx"
    assert "goes to the next" in row(why, "amx").reason


def test_at_the_highest_precision_its_predicted_time_decides():
    """Six products are about as fast as multiply-adds: which of both depends on the machine and the layer."""
    for taps in (1, 3, 7):
        why = fastdil.explain(BIG[0], (*BIG[1][:2], taps, taps), padding=2, dilation=2)
        able = [each for each in why.candidates if each.verdict != "refused"]
        assert why.chosen == min(able, key=lambda each: each.seconds).name
        assert row(why, "amx") in able
    assert fastdil.explain(*BIG, padding=2, dilation=2, method="amx").chosen == "amx"


@pytest.mark.parametrize(
    ("channels", "dtype", "reason"),
    [(15, "float32", "16 input channels"), (64, "float64", "not float64"), (64, "complex64", "not complex64")],
)
def test_refusals(channels, dtype, reason):
    shapes = (1, channels, 40), (20, channels, 3)
    assert reason in row(fastdil.explain(*shapes, dtype=dtype), "amx").reason
    with pytest.raises(ValueError, match=reason):
        fastdil.conv1d(*(np.zeros(shape, dtype) for shape in shapes), method="amx")


def test_the_peak_of_the_unit():
    assert 0 < peak.measure_tile_peak(UNIT, 4 if UNIT == "emulated" else 5000) < 1e5


def test_the_machine_says_so():
    assert fastdil.machine().amx == UNIT
    assert "AMX" in str(fastdil.machine())


# ---------------------------------------------------------------------------------------------------------
# arrays of bfloat16
# ---------------------------------------------------------------------------------------------------------


def test_bfloat16_arrays_take_one_product_at_every_precision():
    """As exact as float32 before the result is rounded; weights packed for float32 samples serve no others."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x, w = (values.astype(ml_dtypes.bfloat16) for values in numbers())
    wide = [values.astype(np.float32) for values in (x, w)]
    truth, error = naive.conv(*wide, **ARGS), limit("highest", *wide, **ARGS)
    p = fastdil.plan(w, method="amx", precision="high", **ARGS)
    y, narrow = p(wide[0]), p(x)
    assert y.dtype == np.float32
    assert_within(y, truth, limit("high", *wide, **ARGS))
    for found in (narrow, p(x), fastdil.conv(x, w, method="amx", **ARGS)):
        assert found.dtype == x.dtype
        for side in (-1, 1):
            bound = np.float32(truth + side * error).astype(x.dtype).astype(np.float32)
            assert (side * (bound - found.astype(np.float32)) >= 0).all()
    at = {"dtype": "bfloat16", **ARGS}
    explanation = fastdil.explain((8, 256, 64, 64), (256, 256, 3, 3), **at)
    assert explanation.chosen == "amx"
    assert "not been timed" not in row(explanation, "amx").reason
    assert "bfloat16 2-D" in str(explanation)
