"""Streams: the bits of one causal call, however the signal is cut, and nothing changed by a call that fails."""

import copy
import pickle
import tracemalloc

import numpy as np
import pytest

import fastdil

#: channels, outputs, taps, dilation, groups: one chain; several; sums that are merged exactly; parts of channels;
#: several blocks of outputs; depthwise; kernels longer than a block; folded where the signal is long; no history.
LAYERS = [
    (1, 1, 16, 1, 1),
    (3, 4, 3, 5, 1),
    (8, 16, 2, 4, 2),
    (200, 33, 5, 3, 1),
    (70, 150, 2, 1, 1),
    (6, 6, 3, 2, 6),
    (1, 2, 100, 2, 1),
    (20, 3, 19, 2, 1),
    (1, 1, 64, 8, 1),
    (2, 2, 30, 32, 2),
    (5, 7, 1, 9, 1),
    (130, 5, 2, 3, 1),  # small kernels: several parts of the channels at a time, short and long sums
    (400, 3, 2, 4, 1),
    (700, 3, 1, 1, 1),
]
METHODS = ("direct", "im2col")
CUTS = (0, 1, 1, 1, 2, 3, 5, 13, 40, 64, 65, 149)


def numbers(rng, shape, dtype):
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        return rng.integers(0, 100, shape).astype(dtype)
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if dtype.kind == "c" else values).astype(dtype)


def cuts(rng, length):
    """Slices of random lengths that cover a signal."""
    first = 0
    while first < length:
        count = min(int(rng.choice(CUTS)), length - first)
        yield slice(first, first + count)
        first += count


def in_chunks(rng, stream, x):
    return np.concatenate([stream.process(x[..., part]) for part in cuts(rng, x.shape[-1])], axis=-1)


def same_bits(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_bits_of_one_call(layer, method):
    channels, outputs, taps, dilation, groups = layer
    rng = np.random.default_rng(taps)
    x = numbers(rng, (2, channels, 500), "float32")
    w, b = numbers(rng, (outputs, channels // groups, taps), "float32"), numbers(rng, outputs, "float32")
    words = {"activation": "tanh" if outputs == 4 else None, "method": method}
    stream = fastdil.Stream(w, b, dilation, groups, **words)
    for length in (500, 77):  # tap culling depends on the length
        expected = fastdil.conv1d(x[..., :length], w, b, dilation=dilation, groups=groups, padding="causal", **words)
        assert same_bits(in_chunks(rng, stream, x[..., :length]), expected)
        stream.reset()


NARROW, WIDE = (3, 4, 3, 5, 1), (60, 14, 11, 1, 2)
KINDS = ("float64", "complex64", "int16")
DTYPES = (*KINDS, "complex128", "uint8", "int64", "float16", "bool")


@pytest.mark.parametrize(
    ("layer", "dtype"), [*((NARROW, dtype) for dtype in DTYPES), *((WIDE, dtype) for dtype in KINDS)], ids=str
)
def test_dtypes(layer, dtype):
    channels, outputs, taps, dilation, groups = layer
    rng = np.random.default_rng(1)
    x = numbers(rng, (channels, 200), dtype)
    w, b = numbers(rng, (outputs, channels // groups, taps), dtype), numbers(rng, outputs, dtype)
    words = {"activation": None if x.dtype.kind == "c" else "relu"}
    stream = fastdil.Stream(w, b, dilation, groups, **words)
    words |= {"dilation": dilation, "groups": groups, "padding": "causal", "method": stream.method}
    assert same_bits(in_chunks(rng, stream, x), fastdil.conv1d(x, w, b, **words))


@pytest.mark.parametrize("unfit", [(0, 1, 3), (3, 0, 2)])
def test_empty(unfit):
    outputs, channels, taps = unfit
    w, b = np.ones((outputs, channels, taps)), np.arange(outputs, dtype=float)
    y = fastdil.Stream(w, b, 2).process(np.ones((channels, 5)))
    np.testing.assert_array_equal(y, np.repeat(b[:, None], 5, axis=1))
    assert fastdil.Stream(np.ones((2, 3, 2))).process(np.ones((0, 3, 4))).shape == (0, 2, 4)
    assert fastdil.Stream(np.ones((2, 3, 2))).process(np.ones((3, 0))).shape == (2, 0)


def test_values_against_the_definition():
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((2, 4, 90)), rng.standard_normal((5, 4, 3))
    padded = np.concatenate((np.zeros((2, 4, 14)), x), axis=2)
    expected = sum(np.einsum("oc,ncl->nol", w[:, :, a], padded[:, :, 7 * a : 7 * a + 90]) for a in range(3))
    np.testing.assert_allclose(in_chunks(rng, fastdil.Stream(w, dilation=7), x), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_weights_and_samples_that_are_not_finite(method):
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((90, 120)), rng.standard_normal((4, 90, 3))
    x[5, 40], x[6, 70], w[1, 2, 0], w[3, 1, 2] = np.nan, np.inf, np.inf, np.nan
    stream = fastdil.Stream(w, dilation=4, method=method)
    expected = fastdil.conv1d(x, w, dilation=4, padding="causal", method=method)
    got = in_chunks(rng, stream, x)
    np.testing.assert_array_equal(got, expected)
    assert same_bits(got[[0, 2]][:, :40], expected[[0, 2]][:, :40])


def test_layouts_of_chunk_and_out():
    rng = np.random.default_rng(4)
    x, w = rng.standard_normal((2, 6, 60)), rng.standard_normal((3, 6, 4))
    stream = fastdil.Stream(w, dilation=3)
    expected = fastdil.conv1d(x, w, dilation=3, padding="causal", method=stream.method)
    backwards = np.ascontiguousarray(x.transpose(2, 1, 0)[::-1])[::-1].transpose(2, 1, 0)
    swapped, room = x.astype(">f8"), np.zeros((60, 3, 2))
    out = room.transpose(2, 1, 0)
    frozen = x.copy()
    frozen.flags.writeable = False
    for first, source in zip(range(0, 60, 15), (backwards, swapped, frozen, np.asfortranarray(x)), strict=True):
        part = np.s_[:, :, first : first + 15]
        assert stream.process(source[part], out=out[part]) is not None
    assert np.array_equal(out, expected)


# ---------------------------------------------------------------------------------------------------------
# state
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_save_and_restore_half_way(seed):
    rng = np.random.default_rng(seed)
    x, w = numbers(rng, (3, 8, 400), "float32"), numbers(rng, (16, 8, 3), "float32")
    half, dilation = int(rng.integers(1, 399)), int(rng.choice([1, 7, 64, 300]))
    first = fastdil.Stream(w, dilation=dilation)
    begun = in_chunks(rng, first, x[..., :half])
    state = first.state
    padded = np.concatenate((np.zeros((3, 8, 2 * dilation), np.float32), x[..., :half]), axis=2)
    assert same_bits(state, np.ascontiguousarray(padded[..., half:]))
    second = fastdil.Stream(w, dilation=dilation)
    second.state = state
    state[...] = 7  # a copy: what happens to it is of no interest to the streams
    expected = fastdil.conv1d(x, w, dilation=dilation, padding="causal", method=first.method)
    for stream in (copy.deepcopy(second), pickle.loads(pickle.dumps(second)), second, first):
        ended = in_chunks(rng, stream, x[..., half:])
        assert same_bits(np.concatenate((begun, ended), axis=2), expected)


@pytest.mark.parametrize("dtype", ["float16", "bool", "complex64"])
def test_copies_keep_the_dtype(dtype):
    rng = np.random.default_rng(11)
    x, w, b = numbers(rng, (2, 60), dtype), numbers(rng, (3, 2, 4), dtype), numbers(rng, 3, dtype)
    first = fastdil.Stream(w, b, 5)
    begun = first.process(x[:, :23])
    for stream in (copy.deepcopy(first), pickle.loads(pickle.dumps(first)), first):
        assert stream.dtype == first.dtype
        got = np.concatenate((begun, stream.process(x[:, 23:])), axis=1)
        assert same_bits(got, fastdil.conv1d(x, w, b, dilation=5, padding="causal", method=first.method))


def test_a_state_of_zeros_is_the_start():
    rng = np.random.default_rng(5)
    x, w = numbers(rng, (20, 90), "float32"), numbers(rng, (4, 20, 3), "float32")
    for method in METHODS:
        stream = fastdil.Stream(w, dilation=16, method=method)
        stream.process(x)
        stream.state = np.zeros((20, 32), np.float32)
        expected = fastdil.conv1d(x, w, dilation=16, padding="causal", method=method)
        assert same_bits(in_chunks(rng, stream, x), expected)


def test_batch():
    w = np.ones((1, 2, 3))
    stream = fastdil.Stream(w, dilation=2)
    assert stream.state.shape == (2, 4)
    stream.process(np.ones((3, 2, 5)))
    assert stream.state.shape == (3, 2, 4)
    with pytest.raises(ValueError, match=r"chunk\.shape=\(2, 5\): expected \(3, 2, L\)"):
        stream.process(np.ones((2, 5)))
    stream.reset()
    assert stream.process(np.ones((2, 5))).shape == (1, 5)
    fixed = fastdil.Stream(w, dilation=2, batch=4)
    assert fixed.state.shape == (4, 2, 4)
    with pytest.raises(ValueError, match=r"expected \(4, 2, L\)"):
        fixed.process(np.ones((3, 2, 5)))


BAD_STATES = [
    (np.ones((2, 5), np.float32), ValueError, r"state\.shape=\(2, 5\): expected \(3, 2, 4\)"),
    (np.ones((3, 2, 3), np.float32), ValueError, "state.shape"),
    (np.ones((4, 2, 4), np.float32), ValueError, "state.shape"),
    (np.ones(4, np.float32), ValueError, "state.shape"),
    (np.ones((3, 2, 4)), TypeError, "state.dtype='float64'"),
    (np.ones((3, 2, 4), complex), TypeError, "state.dtype"),
    (None, TypeError, "state"),
    ("abc", TypeError, "state"),
]
BAD_CHUNKS = [
    (np.ones((3, 3, 5), np.float32), ValueError, "chunk.shape"),
    (np.ones((2, 2, 5), np.float32), ValueError, "chunk.shape"),
    (np.ones(5, np.float32), ValueError, "chunk.shape"),
    (np.ones((1, 3, 2, 5), np.float32), ValueError, "chunk.shape"),
    (np.ones((3, 2, 5)), TypeError, "chunk.dtype='float64'"),
    (None, TypeError, "chunk"),
]


@pytest.mark.parametrize("case", [*BAD_STATES, *BAD_CHUNKS], ids=lambda case: case[2])
def test_refusals_leave_the_stream_unharmed(case):
    value, error, text = case
    rng = np.random.default_rng(6)
    x, w = numbers(rng, (3, 2, 40), "float32"), numbers(rng, (5, 2, 3), "float32")
    stream = fastdil.Stream(w, dilation=2)
    begun = stream.process(x[..., :17])
    call = (
        stream.process if any(case is other for other in BAD_CHUNKS) else lambda value: setattr(stream, "state", value)
    )
    with pytest.raises(error, match=text):
        call(value)
    ended = stream.process(x[..., 17:])
    expected = fastdil.conv1d(x, w, dilation=2, padding="causal", method=stream.method)
    assert same_bits(np.concatenate((begun, ended), axis=2), expected)


def test_a_refused_out_leaves_the_stream_unharmed():
    rng = np.random.default_rng(7)
    x, w = numbers(rng, (2, 40), "float32"), numbers(rng, (2, 2, 3), "float32")
    stream = fastdil.Stream(w, dilation=2)
    begun = stream.process(x[:, :11])
    chunk = x[:, 11:12].copy()
    for out in (chunk, np.empty((3, 1), np.float32), np.empty((2, 1)), np.empty((2, 2), np.float32), [1.0]):
        with pytest.raises((TypeError, ValueError), match="out"):
            stream.process(chunk, out=out)
    ended = stream.process(x[:, 11:])
    expected = fastdil.conv1d(x, w, dilation=2, padding="causal", method=stream.method)
    assert same_bits(np.concatenate((begun, ended), axis=1), expected)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"dilation": 0}, ValueError, "dilation=0"),
        ({"groups": 3}, ValueError, "groups"),
        ({"bias": np.ones(3)}, ValueError, "bias"),
        ({"activation": "swish"}, ValueError, "activation"),
        ({"dtype": "S3"}, TypeError, "dtype"),
        ({"method": "fft"}, ValueError, "method='fft'"),
        ({"batch": -1}, ValueError, "batch=-1"),
        ({"w": np.ones((2, 2))}, ValueError, "w"),
    ],
)
def test_wrong_arguments(change, error, text):
    words = {"w": np.ones((4, 2, 3)), **change}
    with pytest.raises(error, match=text):
        fastdil.Stream(words.pop("w"), **words)


def test_dtype_widens_the_stream():
    w = np.ones((1, 1, 2), np.float32)
    stream = fastdil.Stream(w, dtype="float64")
    assert stream.dtype == np.float64
    assert stream.process(np.full((1, 3), 0.1)).dtype == np.float64
    assert stream.process(np.ones((1, 3), np.float32)).dtype == np.float64


@pytest.mark.parametrize("count", [1, 40, 2000])
def test_nothing_is_allocated_with_out(count):
    """But for Python's own numbers; also where long chunks find a history that is spread over the ring's two ends."""
    x, w = np.ones((16, count), np.float32), np.ones((16, 16, 3), np.float32)
    stream, out = fastdil.Stream(w, dilation=500, threads=1), np.empty((16, count), np.float32)
    single, one = x[:, :1].copy(), np.empty((16, 1), np.float32)
    for _ in range(3):
        stream.process(x, out=out)
    for _ in range(5):
        for _ in range(13):
            stream.process(single, out=one)
        tracemalloc.start()
        stream.process(x, out=out)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < (1000 if count < 100 else 20_000)


# ---------------------------------------------------------------------------------------------------------
# stacks
# ---------------------------------------------------------------------------------------------------------

DILATIONS = (1, 2, 4, 8, 16)


def wavenet(rng, residual=6, gate=10, skip=4, dtype="float32"):
    """Weights of a small WaveNet, one tuple per layer: dilated, its bias, mix, skip."""
    shapes = [(2 * gate, residual, 2), (2 * gate,), (residual, gate, 1), (skip, gate, 1)]
    return [tuple(numbers(rng, shape, dtype) / 4 for shape in shapes) for _ in DILATIONS]


def stack_of(layers):
    blocks = []
    for dilation, (w, b, mix, skip) in zip(DILATIONS, layers, strict=True):
        parts = {"mix": fastdil.Stream(mix), "skip": fastdil.Stream(skip)}
        blocks.append(fastdil.StreamBlock(fastdil.Stream(w, b, dilation), gated=True, **parts))
    return fastdil.StreamStack(blocks)


def offline(stack, layers, x):
    """The same network as whole-signal calls and NumPy arithmetic; activations are those of a 1 x 1 convolution."""
    total = 0
    for block, dilation, (w, b, mix, skip) in zip(stack.blocks, DILATIONS, layers, strict=True):
        half, words = len(w) // 2, {"dilation": dilation, "padding": "causal", "method": block.conv.method}
        tanh = fastdil.conv1d(x, w, b, activation="tanh", **words)[..., :half, :]
        sigmoid = fastdil.conv1d(x, w, b, activation="sigmoid", **words)[..., half:, :]
        z = tanh * sigmoid
        total = total + fastdil.conv1d(z, skip, method=block.skip.method)
        x = x + fastdil.conv1d(z, mix, method=block.mix.method)
    return total


@pytest.mark.parametrize("shape", [(6, 150), (2, 6, 150)])
def test_stack(shape):
    rng = np.random.default_rng(8)
    layers, x = wavenet(rng), numbers(rng, shape, "float32")
    stack = stack_of(layers)
    expected = offline(stack, layers, x)
    assert same_bits(in_chunks(rng, stack, x), expected)
    stack.reset()
    assert same_bits(np.concatenate([stack.process(x[..., i : i + 1]) for i in range(150)], axis=-1), expected)


def test_stack_against_float64():
    rng = np.random.default_rng(9)
    layers, x = wavenet(rng, dtype="float64"), rng.standard_normal((6, 80))
    got, total, signal = stack_of(layers).process(x), 0, x
    for dilation, (w, b, mix, skip) in zip(DILATIONS, layers, strict=True):
        before = np.concatenate((np.zeros((6, dilation)), signal), axis=1)
        f = w[:, :, 0] @ before[:, :80] + w[:, :, 1] @ signal + b[:, None]
        z = np.tanh(f[:10]) / (1 + np.exp(-f[10:]))
        total, signal = total + skip[:, :, 0] @ z, signal + mix[:, :, 0] @ z
    np.testing.assert_allclose(got, total, rtol=0, atol=1e-13)


def test_stack_state():
    rng = np.random.default_rng(10)
    layers, x = wavenet(rng), numbers(rng, (6, 90), "float32")
    first, second = stack_of(layers), stack_of(layers)
    begun = first.process(x[:, :41])
    second.state = first.state
    ended = second.process(x[:, 41:])
    assert same_bits(np.concatenate((begun, ended), axis=1), offline(first, layers, x))
    state = first.state
    with pytest.raises(ValueError, match=r"len\(state\)"):
        first.state = state[:-1]
    state[-3] = np.zeros((9, 9), np.float32)
    with pytest.raises(ValueError, match=r"state\.shape"):
        first.state = state
    with pytest.raises(ValueError, match=r"chunk\.shape"):
        first.process(np.ones((5, 3), np.float32))
    assert same_bits(first.process(x[:, 41:]), ended)


@pytest.mark.parametrize("dtype", ["float16", "float32", "int32"])
@pytest.mark.parametrize("biases", [(False, False), (True, True), (True, False)])
def test_mix_and_skip_have_the_bits_of_their_own_calls(biases, dtype):
    rng = np.random.default_rng(11)
    w, x = numbers(rng, (5, 3, 2), dtype), numbers(rng, (2, 3, 20), dtype)
    weights = numbers(rng, (3, 5, 1), dtype), numbers(rng, (4, 5, 1), dtype)
    shifts = [numbers(rng, (len(part),), dtype) if has else None for part, has in zip(weights, biases, strict=True)]
    mix, skip = map(fastdil.Stream, weights, shifts)
    stack = fastdil.StreamStack([fastdil.StreamBlock(fastdil.Stream(w), mix=mix, skip=skip)])
    z = fastdil.Stream(w).process(x)
    assert same_bits(in_chunks(rng, stack, x), fastdil.Stream(weights[1], shifts[1]).process(z))
    other = fastdil.StreamStack([fastdil.StreamBlock(fastdil.Stream(w), mix=fastdil.Stream(weights[0], shifts[0]))])
    assert same_bits(other.process(x), x + fastdil.Stream(weights[0], shifts[0]).process(z))
    passed, skipped = stack.blocks[0].advance(stack.blocks[0].conv.converted(x), 2)
    assert passed.shape == (2, 3, 20)
    assert skipped.shape == (2, 4, 20)
    copied = copy.deepcopy(stack)
    assert [part.shape for part in copied.state] == [(2, 3, 1), (2, 5, 0), (2, 5, 0)]
    copied.state = stack.state
    assert same_bits(copied.process(x), stack.process(x))
    stack.reset()
    assert stack.process(x[0]).shape == (4, 20)


def test_plain_layers():
    w = np.ones((2, 2, 2))
    stack = fastdil.StreamStack([fastdil.Stream(w), fastdil.StreamBlock(fastdil.Stream(w, dilation=2))])
    np.testing.assert_array_equal(stack.process(np.ones((2, 4)))[0], [6, 12, 16, 20])


def test_parts_that_do_not_fit():
    one, two = (fastdil.Stream(np.ones((n, 1, 1))) for n in (1, 2))
    odd = fastdil.Stream(np.ones((3, 3, 2)))
    cases = [
        (lambda: fastdil.StreamBlock(two), "out_channels"),
        (lambda: fastdil.StreamBlock(odd, gated=True), "even"),
        (lambda: fastdil.StreamBlock(odd, mix=one), "mix.in_channels"),
        (lambda: fastdil.StreamBlock(one, mix=one), "history"),
        (lambda: fastdil.StreamStack([one, odd]), r"blocks\[1\].in_channels"),
        (lambda: fastdil.StreamStack([one, one]), "twice"),
        (lambda: fastdil.StreamStack([]), "at least one"),
    ]
    for build, text in cases:
        with pytest.raises(ValueError, match=text):
            build()
    with pytest.raises(TypeError, match="a Stream"):
        fastdil.StreamBlock(np.ones(3))
    with pytest.raises(TypeError, match=r"blocks\[0\]"):
        fastdil.StreamStack([np.ones(3)])
