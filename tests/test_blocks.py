"""conv_blocks: the whole in memory and the blocks agree, bit for bit where that is promised, and memory is bounded."""

import naive
import numpy as np
import pytest
from checks import assert_within, run_child

import fastdil

MODES = ("zeros", "reflect", "replicate", "circular", "symmetric")
#: x shape, w shape, arguments.
PROBLEMS = {
    "image": ((1, 1, 37, 41), (1, 1, 3, 3), {"padding": "same", "dilation": 5}),
    "uneven": ((2, 3, 29, 31), (4, 3, 3, 3), {"padding": ((7, 2), (-3, 9)), "dilation": (4, 3), "stride": (2, 1)}),
    "groups": ((1, 2, 200), (2, 1, 5), {"groups": 2, "padding": "causal", "dilation": 16}),
    "unbatched": ((3, 100), (2, 3, 5), {"padding": "same", "dilation": 30}),
    "volume": ((1, 2, 9, 20, 22), (1, 2, 2, 3, 3), {"padding": 2, "dilation": 2}),
    "long sums": ((1, 1, 60, 60), (1, 1, 9, 9), {"padding": "same", "dilation": 3}),
    "strided sums": ((1, 1, 60, 60), (2, 1, 9, 9), {"padding": "same", "dilation": 3, "stride": 3}),
    "gathered sums": ((1, 40, 30), (2, 40, 11), {"padding": 25, "dilation": 5}),
    "gathered lines": ((1, 7, 400), (2, 7, 60), {"padding": 90, "dilation": 3}),
    "beyond": ((1, 2, 12, 11), (2, 2, 3, 3), {"padding": 30, "dilation": 7}),
}


def arrays(x_shape, w_shape, dtype):
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind in "iu":
        return (rng.integers(0, 9, shape).astype(dtype) for shape in (x_shape, w_shape, w_shape[:1]))
    return (rng.normal(size=shape).astype(dtype) for shape in (x_shape, w_shape, w_shape[:1]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PROBLEMS)
def test_exact_for_integers(name, mode):
    x_shape, w_shape, args = PROBLEMS[name]
    x, w, bias = arrays(x_shape, w_shape, np.int16)
    truth = naive.conv(x, w, bias, padding_mode=mode, **args)
    for block_bytes in (3000, 20_000):
        out = np.full(truth.shape, -1, np.int16)
        assert fastdil.conv_blocks(x, w, out, bias, padding_mode=mode, block_bytes=block_bytes, **args) is out
        np.testing.assert_array_equal(out, truth)


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("method", ["direct", "reference"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_same_bits(name, method, mode):
    x_shape, w_shape, args = PROBLEMS[name]
    x, w, bias = arrays(x_shape, w_shape, np.float32)
    args = {**args, "padding_mode": mode, "method": method}
    whole = fastdil.conv(x, w, bias, **args)
    for block_bytes in (1000, 3000, 20_000):
        out = np.full_like(whole, np.nan)
        fastdil.conv_blocks(x, w, out, bias, block_bytes=block_bytes, **args)
        np.testing.assert_array_equal(out, whole)


@pytest.mark.parametrize("method", ["im2col", "fft", "auto"])
def test_all_methods_keep_the_bound(method):
    x, w, bias = arrays((1, 4, 3000), (4, 4, 41), np.float32)
    args = {"padding": "same", "dilation": 5}
    out = np.empty_like(x)
    fastdil.conv_blocks(x, w, out, bias, method=method, block_bytes=30_000, **args)
    assert_within(out, naive.conv(x, w, bias, **args), naive.bound(np.float32, x, w, bias, **args))


def test_auto_steps_back_from_transforms_where_samples_are_not_finite():
    x, w, _ = arrays((1, 8, 4000), (8, 8, 101), np.float32)
    x[0, 3, 1000] = np.inf
    out = np.empty_like(x)
    fastdil.conv_blocks(x, w, out, padding="same", block_bytes=40_000)
    np.testing.assert_array_equal(np.isfinite(out), np.isfinite(fastdil.conv(x, w, padding="same", method="direct")))


@pytest.mark.parametrize("shape", [(0, 2, 8, 8), (2, 0, 8, 8)])
def test_empty(shape):
    out = np.full((shape[0], 3, 6, 6), 7.0)
    fastdil.conv_blocks(np.zeros(shape), np.ones((3, shape[1], 3, 3)), out, np.arange(3.0))
    np.testing.assert_array_equal(out, np.broadcast_to(np.arange(3.0)[:, None, None], out.shape))


def test_empty_axis():
    out = np.zeros((1, 1, 0))
    assert fastdil.conv_blocks(np.zeros((1, 1, 0)), np.ones((1, 1, 3)), out, padding="same") is out


class Store:
    """As far as arrays in files and in chunks go: slices with step 1 only."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def _check(self, key):
        for part in key:
            assert type(part) is slice
            assert part.step is None
            assert part.start is None or 0 <= part.start <= part.stop

    def __getitem__(self, key):
        self._check(key)
        return self.array[key].copy()

    def __setitem__(self, key, value):
        self._check(key)
        self.array[key] = value


@pytest.mark.parametrize("mode", MODES)
def test_stores_are_read_and_written_by_plain_slices(mode):
    x, w, _ = arrays((2, 1, 20, 30), (1, 1, 3, 3), np.int16)
    out = Store(np.zeros((2, 1, 20, 30), np.int16))
    fastdil.conv_blocks(Store(x), w, out, padding="same", dilation=6, padding_mode=mode, block_bytes=5000)
    np.testing.assert_array_equal(out.array, naive.conv(x, w, padding="same", dilation=6, padding_mode=mode))


def test_mixed_dtypes_strides_and_byte_order():
    x, w, _ = arrays((40, 30, 2), (3, 2, 3, 3), np.int8)
    big = np.asfortranarray(x).astype(">i2").transpose(2, 0, 1)
    out = np.zeros((2 * 3, 36, 26), ">i2")[::2]
    fastdil.conv_blocks(big, w, out, dilation=2, block_bytes=9000)
    np.testing.assert_array_equal(out, naive.conv(big.astype(np.int16), w, dilation=2))


# ---------------------------------------------------------------------------------------------------------
# memmaps
# ---------------------------------------------------------------------------------------------------------


def mapped(path, shape, mode="w+"):
    return np.lib.format.open_memmap(path, mode, np.float32, shape)


def test_memmap_in_and_out(tmp_path):
    x, y = mapped(tmp_path / "x.npy", (1, 300, 400)), mapped(tmp_path / "y.npy", (1, 300, 400))
    x[:] = np.random.default_rng(1).normal(size=x.shape)
    x.flush()
    kept, w = np.array(x), np.ones((1, 1, 3, 3), np.float32)
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    fastdil.conv_blocks(x, w, y, padding=20, dilation=20, method="direct", block_bytes=60_000)
    y.flush()
    written = np.load(tmp_path / "y.npy")
    np.testing.assert_array_equal(written, fastdil.conv(kept, w, padding=20, dilation=20, method="direct"))
    np.testing.assert_array_equal(x, kept)


def test_private_changes_of_a_memmap_survive(tmp_path):
    mapped(tmp_path / "x.npy", (1, 5000)).flush()
    x = np.load(tmp_path / "x.npy", mmap_mode="c")
    x[:] = 1
    out = np.zeros((1, 5000), np.float32)
    fastdil.conv_blocks(x, np.ones((1, 1, 1), np.float32), out, method="direct", block_bytes=1000)
    assert x.min() == out.min() == 1


def test_the_same_file_is_refused(tmp_path):
    x = mapped(tmp_path / "x.npy", (1, 100))
    again = np.load(tmp_path / "x.npy", mmap_mode="r+")
    w = np.ones((1, 1, 1), np.float32)
    for out in (x, again, again[:, ::-1]):
        with pytest.raises(ValueError, match="out="):
            fastdil.conv_blocks(x, w, out)


def test_memory_is_bounded():
    """128 MiB in and 128 MiB out, within 48 MiB beyond what the process held before."""
    run_child("child_blocks.py")


# ---------------------------------------------------------------------------------------------------------
# progress and refusals
# ---------------------------------------------------------------------------------------------------------


def test_progress_counts_all_blocks():
    seen = []
    out = np.zeros((4, 1, 1000))
    args = {"block_bytes": 5000, "progress": lambda done, total: seen.append((done, total))}
    fastdil.conv_blocks(np.ones((4, 1, 1000)), np.ones((1, 1, 1)), out, **args)
    assert len(seen) > 8
    assert seen == [(done, len(seen)) for done in range(1, len(seen) + 1)]


def test_progress_can_cancel():
    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    out = np.zeros((1, 1000))
    with pytest.raises(KeyboardInterrupt):
        fastdil.conv_blocks(np.ones((1, 1000)), np.ones((1, 1, 1)), out, block_bytes=1600, progress=stop)
    assert 0 < out.sum() < 1000


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"block_bytes": 0}, ValueError),
        ({"block_bytes": 1.5}, TypeError),
        ({"progress": 3}, TypeError),
        ({"method": "best"}, ValueError),
        ({"threads": 0}, ValueError),
        ({"dilation": 0}, ValueError),
        ({"padding": "around"}, ValueError),
        ({"out": np.full((1, 9), 7.0)}, ValueError),
        ({"out": Store(np.full((1, 9), 7.0))}, ValueError),
        ({"out": np.full((1, 8), 7.0, np.float32)}, TypeError),
        ({"out": Store(np.full((1, 8), 7.0, np.float32))}, TypeError),
        ({"x": np.ones((1, 1, 1, 10))}, ValueError),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refusals_name_the_parameter_and_write_nothing(change, error):
    args = {"x": np.ones((1, 10)), "w": np.ones((1, 1, 3)), "out": np.full((1, 8), 7.0), **change}
    with pytest.raises(error, match=next(iter(change))):
        fastdil.conv_blocks(**args)
    out = args["out"].array if isinstance(args["out"], Store) else args["out"]
    assert np.all(out == 7)
