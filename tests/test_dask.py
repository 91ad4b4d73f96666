"""fastdil.dask against the same calls in memory, for chunks below and above the halo, on threads and on processes."""

import subprocess
import sys

import naive
import numpy as np
import pytest

import fastdil

dask = pytest.importorskip("dask", reason="dask is an optional extra")
da = pytest.importorskip("dask.array", reason="dask.array is an optional extra")
fastdil_dask = pytest.importorskip("fastdil.dask")

MODES = ("zeros", "reflect", "replicate", "circular", "symmetric")
#: x shape, w shape, arguments, chunks: the first below the halo, then above, then all in one.
PROBLEMS = {
    "image": ((1, 1, 37, 41), (1, 1, 3, 3), {"padding": "same", "dilation": 5}, [(1, 1, 4, 3), (1, 1, 15, 12), -1]),
    "uneven": (
        (2, 3, 29, 31),
        (4, 3, 3, 3),
        {"padding": ((7, 2), (-3, 9)), "dilation": (4, 3), "stride": (2, 1)},
        [(1, 2, 5, 4), (2, 3, (10, 1, 18), (13, 0, 18))],
    ),
    "unbatched": ((3, 100), (2, 3, 5), {"padding": "same", "dilation": 30}, [(1, 7), (3, 50)]),
    "long sums": ((1, 1, 60, 60), (1, 1, 9, 9), {"padding": "same", "dilation": 3}, [(1, 1, 11, 13), (1, 1, 30, 30)]),
    "channels": ((1, 8, 40, 40), (8, 8, 3, 3), {"padding": 40, "dilation": 40}, [(1, 8, 9, 13)]),
    "volume": ((1, 2, 9, 20, 22), (1, 2, 2, 3, 3), {"padding": 2, "dilation": 2}, [(1, 1, 2, 7, 9)]),
}


@pytest.fixture(autouse=True, params=["threads"])
def scheduler(request):
    with dask.config.set(scheduler=request.param, num_workers=2):
        yield


def arrays(*shapes, dtype=np.float32):
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind in "iu":
        return [rng.integers(-9, 9, shape).astype(dtype) for shape in shapes]
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def computed(lazy):
    """The result, whose shape, chunks and dtype are those announced."""
    y = lazy.compute()
    assert type(y) is np.ndarray
    assert (y.shape, y.dtype) == (lazy.shape, lazy.dtype)
    assert tuple(map(sum, lazy.chunks)) == y.shape
    first = lazy.blocks[(0,) * lazy.ndim].compute()
    np.testing.assert_array_equal(first, y[tuple(slice(0, sizes[0]) for sizes in lazy.chunks)])
    return y


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PROBLEMS)
def test_conv_exact_for_integers(name, mode):
    x_shape, w_shape, args, chunkings = PROBLEMS[name]
    x, w, bias = arrays(x_shape, w_shape, w_shape[:1], dtype=np.int16)
    truth = naive.conv(x, w, bias, padding_mode=mode, **args)
    y = fastdil_dask.conv(da.from_array(x, chunks=chunkings[0]), w, bias, padding_mode=mode, **args)
    np.testing.assert_array_equal(computed(y), truth)


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_conv_has_the_bits_of_memory(name, mode):
    x_shape, w_shape, args, chunkings = PROBLEMS[name]
    x, w, bias = arrays(x_shape, w_shape, w_shape[:1])
    args = {**args, "padding_mode": mode, "method": "direct"}
    whole = fastdil.conv(x, w, bias, **args)
    for chunks in chunkings:
        y = fastdil_dask.conv(da.from_array(x, chunks=chunks), w, bias, **args)
        np.testing.assert_array_equal(computed(y), whole)


def test_auto_is_chosen_once_and_steps_back_where_samples_are_not_finite():
    x, w = arrays((1, 8, 4000), (8, 8, 101))
    x[0, 3, 1000] = np.nan
    y = computed(fastdil_dask.conv(da.from_array(x, chunks=(1, 8, 700)), w, padding="same"))
    whole = fastdil.conv(x, w, padding="same", method="direct")
    np.testing.assert_array_equal(np.isnan(y), np.isnan(whole))
    assert np.nanmax(np.abs(y - whole)) <= 8 * np.finfo(np.float32).eps * naive.magnitude(
        np.nan_to_num(x), w, padding=50
    )


@pytest.mark.parametrize("boundary", MODES)
@pytest.mark.parametrize("mode", ["full", "same", "valid", "causal"])
@pytest.mark.parametrize("name", ["correlate", "convolve"])
def test_signals_have_the_bits_of_memory(name, mode, boundary):
    x, taps = arrays((3, 50, 21), (5,))
    for axis in (1, -1):
        args = {"dilation": 3, "mode": mode, "axes": axis, "boundary": boundary, "method": "direct"}
        y = getattr(fastdil_dask, name)(da.from_array(x, chunks=(2, 6, 5)), taps, **args)
        np.testing.assert_array_equal(computed(y), getattr(fastdil, name)(x, taps, **args))


def test_signals_in_two_axes_and_complex():
    x, taps = (np.round(3 * a) for a in arrays((20, 3, 30), (3, 4)))  # small integers: sums are exact
    x, taps = x + np.complex64(1j) * x[::-1], taps - np.complex64(1j) * taps[::-1]
    for name in ("correlate", "convolve"):
        y = getattr(fastdil_dask, name)(da.from_array(x, chunks=(6, 2, 7)), taps, (2, 3), "same", axes=(2, 0))
        assert y.dtype == np.complex64
        np.testing.assert_array_equal(computed(y), getattr(fastdil, name)(x, taps, (2, 3), "same", axes=(2, 0)))


@pytest.mark.parametrize("boundary", MODES)
@pytest.mark.parametrize("scaling", ["b3", "haar", (0.2, 0.3, 0.4, 0.1)], ids=str)
def test_atrous_has_the_bits_of_memory(scaling, boundary):
    (x,) = arrays((50, 71))
    whole = fastdil.atrous_transform(x, 5, scaling=scaling, boundary=boundary)
    for chunks in ((9, 20), (50, 40)):
        planes = fastdil_dask.atrous_transform(da.from_array(x, chunks=chunks), 5, scaling=scaling, boundary=boundary)
        np.testing.assert_array_equal(computed(planes), whole)
    back = fastdil_dask.inverse_atrous_transform(planes)
    np.testing.assert_array_equal(computed(back), fastdil.inverse_atrous_transform(whole))


def test_atrous_of_some_axes_integers_and_no_levels():
    (x,) = arrays((4, 30, 5), dtype=np.int16)
    lazy = da.from_array(x, chunks=(2, 7, 5))
    for levels in (0, 3):
        planes = fastdil_dask.atrous_transform(lazy, levels, axes=1)
        np.testing.assert_array_equal(computed(planes), fastdil.atrous_transform(x, levels, axes=1))


def test_empty_results():
    x = da.zeros((1, 2, 0), chunks=1)
    assert computed(fastdil_dask.conv(x, np.ones((3, 2, 3)), padding="same")).shape == (1, 3, 0)
    x = da.zeros((0, 2, 9), chunks=4)
    assert computed(fastdil_dask.conv(x, np.ones((3, 2, 3)))).shape == (0, 3, 7)
    for shape, axis in (((3, 0), 1), ((0, 3), 0), ((0, 9), 1)):
        for mode in ("full", "same", "causal"):
            y = fastdil_dask.correlate(da.zeros(shape, dtype=np.float32), np.ones(3, np.float32), 2, mode, axes=axis)
            expected = fastdil.correlate(np.zeros(shape, np.float32), np.ones(3, np.float32), 2, mode, axes=axis)
            assert (y.compute().shape, y.dtype) == (expected.shape, expected.dtype)
    with pytest.raises(ValueError, match="method='best'"):
        fastdil_dask.correlate(da.zeros((3, 0)), np.ones(3), method="best")


def test_one_thread_per_worker_unless_told_otherwise():
    x, w = da.ones((1, 9), chunks=3), np.ones((1, 1, 1))
    for args, expected in (({}, 1), ({"threads": 3}, 3)):
        y = fastdil_dask.conv(x, w, **args)
        operations = [value for key, value in y.dask.items() if str(key).endswith("-operation")]
        assert [getattr(op, "value", op).threads for op in operations] == [expected]


def test_nothing_is_computed_before_it_is_asked_for():
    def fail(block):
        raise AssertionError("read too early")

    x = da.zeros((1, 100), chunks=10).map_blocks(fail, dtype=float, meta=np.empty((0, 0)))
    for y in (fastdil_dask.conv(x, np.ones((1, 1, 3))), fastdil_dask.atrous_transform(x, 2)):
        with pytest.raises(AssertionError, match="too early"):
            y.compute()


def test_a_chunk_reads_its_neighbours_only():
    x = da.zeros((1, 100_000), chunks=1000)
    y = fastdil_dask.conv(x, np.ones((1, 1, 3)), dilation=200, padding="same")
    assert len(y.blocks[0, 50].__dask_graph__().cull(y.blocks[0, 50].__dask_keys__())) < 20


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"x": np.ones((1, 9))}, TypeError),
        ({"x": da.ones((1, 1, 1, 9))}, ValueError),
        ({"threads": 0}, ValueError),
        ({"method": "best"}, ValueError),
        ({"dilation": 0}, ValueError),
        ({"bias": np.ones(2)}, ValueError),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refusals_name_the_parameter(change, error):
    with pytest.raises(error, match=next(iter(change))):
        fastdil_dask.conv(**{"x": da.ones((1, 9)), "w": np.ones((1, 1, 3)), **change})


def test_unknown_chunks_are_refused():
    x = da.ones(9, chunks=3)
    with pytest.raises(ValueError, match="known sizes"):
        fastdil_dask.correlate(x[x > 0], [1, 2])


def test_too_many_tap_axes_are_refused():
    with pytest.raises(ValueError, match=r"taps\.ndim"):
        fastdil_dask.correlate(da.ones((2, 2, 2, 2)), np.ones((1, 1, 1, 1)))


def test_dask_is_loaded_by_its_module_alone():
    code = "import sys, fastdil; fastdil.conv; import fastdil.dask; print('dask' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.strip() == "False"


def test_ten_million_pixels_from_a_memmap(tmp_path):
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (1, 2000, 5000))
    x[:] = np.arange(5000) % 7
    w = np.full((1, 1, 3, 3), 1 / 9, np.float32)
    y = fastdil_dask.conv(da.from_array(x, chunks=(1, 700, 1000)), w, padding="same", dilation=40, method="direct")
    np.testing.assert_array_equal(y.compute(), fastdil.conv(x, w, padding="same", dilation=40, method="direct"))


# dask.distributed opens sockets and processes of its own; only what it leaves to the collector is let pass.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_local_cluster():
    distributed = pytest.importorskip("distributed", reason="distributed is an optional extra")
    x, w = arrays((1, 2, 90, 80), (2, 2, 3, 3))
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with (
        distributed.LocalCluster(host="127.0.0.1", silence_logs=50, **options) as cluster,
        distributed.Client(cluster) as client,
    ):
        lazy = da.from_array(x, chunks=(1, 2, 12, 33))  # below the halo of 15 samples, and above
        y = fastdil_dask.conv(lazy, w, dilation=15, padding="same", method="direct")
        planes = fastdil_dask.atrous_transform(lazy[0, 0], 4)
        futures = client.compute([y, planes])
        distributed.wait(futures, timeout=90)
        both = client.gather(futures)
    np.testing.assert_array_equal(both[0], fastdil.conv(x, w, dilation=15, padding="same", method="direct"))
    np.testing.assert_array_equal(both[1], fastdil.atrous_transform(x[0, 0], 4))
