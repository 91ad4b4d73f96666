"""The command line: what it prints, the files it takes, its error lines and exit codes."""

from __future__ import annotations

import io
import os
import re
import signal
import struct
import subprocess
import sys
import wave
import zipfile
import zlib

import naive
import numpy as np
import pytest

import fastdil
from fastdil.cli import demo, inputs, main
from fastdil.cli.terminal import CliError, Progress

EXPLAIN = ["explain", "--x", "1,32,128,128", "--w", "64,32,3,3"]


def child(*arguments, **options) -> subprocess.CompletedProcess:
    """Run the command in a fresh process."""
    options = {"capture_output": True, "text": True, "timeout": 300, **options}
    return subprocess.run([sys.executable, "-m", "fastdil", *arguments], **options)


def error_line(capsys, *arguments) -> str:
    """The one line that a refused command prints; nothing else may appear."""
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("fastdil: error: ")
    return captured.err.removeprefix("fastdil: error: ").rstrip()


def small_demo(capsys, *arguments) -> str:
    """Output of a demo with one timed run."""
    assert main(["demo", "--repeat", "1", *map(str, arguments)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""  # no progress line: the captured stream is no terminal
    return captured.out


# ---------------------------------------------------------------------------------------------------------
# help, version, usage
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], ["demo"], ["explain"], ["design"], ["analyse"], ["info"]])
def test_help_has_examples_and_succeeds(capsys, command):
    assert main([*command, "--help"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("usage: fastdil")
    assert command == ["info"] or "examples:" in captured.out
    assert max(map(len, captured.out.splitlines())) <= 110


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fastdil {fastdil.__version__}\n"


def test_help_imports_no_library():
    code = "import sys; from fastdil.cli import main; main(['--help']); print(*sys.modules, sep='\\n')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "numba", "scipy", "llvmlite"} & set(run.stdout.splitlines())


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], "expected a command: demo, explain, design, analyse or info"),
        (["convolve"], "'convolve'"),
        (["demo", "--repeat", "0"], "--repeat: expected an integer >= 1, not '0'"),
        (["demo", "--threads", "two"], "--threads: expected an integer >= 1, not 'two'"),
        (["demo", "--dilation", "-3"], "--dilation"),
        (["demo", "--method", "magic"], "method='magic': expected one of"),
        (["demo", "--save", "out.txt"], "--save: expected a file ending in .npy, not 'out.txt'"),
        (["demo", "--save", "no/such/folder/out.npy"], "--save: expected a file in an existing folder"),
        (["demo", "--colour"], "--colour"),
        (["explain", "--x", "1,2,3"], "--w"),
        ([*EXPLAIN, "--padding", "1:2,x"], "--padding: expected lo:hi pairs"),
        ([*EXPLAIN, "--padding", "wide"], "padding='wide': expected one of 'valid'"),
        ([*EXPLAIN, "--padding", "1,2,3"], "padding=(1, 2, 3): expected 2 entries"),
        ([*EXPLAIN, "--dilation", "1.5"], "--dilation: expected integers separated by commas, not '1.5'"),
        ([*EXPLAIN, "--dilation", "0"], "dilation=0: expected an integer >= 1"),
        ([*EXPLAIN, "--stride", "0"], "stride=0: expected an integer >= 1"),
        ([*EXPLAIN, "--groups", "3"], "groups=3: expected a divisor"),
        ([*EXPLAIN, "--dilation", "100"], "x.shape=(128, 128): expected at least 201 samples"),
        ([*EXPLAIN, "--dtype", "decimal"], "dtype='decimal': expected a NumPy dtype"),
        ([*EXPLAIN, "--padding-mode", "mirror"], "padding_mode='mirror': expected one of 'zeros'"),
        ([*EXPLAIN, "--activation", "maxout"], "activation='maxout': expected one of 'relu'"),
        ([*EXPLAIN, "--precision", "low"], "precision='low': expected one of 'highest'"),
        ([*EXPLAIN, "--method", "magic"], "method='magic': expected one of"),
        (["explain", "--x", "1,3,9", "--w", "4,2,3"], "x.shape=(1, 3, 9): expected 2 channels"),
    ],
)
def test_bad_argument_is_one_line(capsys, arguments, names):
    assert names in error_line(capsys, *arguments)


def test_bad_argument_in_a_real_process():
    run = child("explain", "--x", "1,32,16,16", "--w", "64,32,3,3", "--dilation", "nine")
    assert (run.returncode, run.stdout) == (2, "")
    assert re.fullmatch(r"fastdil: error: .*'nine'.*\n", run.stderr)


# ---------------------------------------------------------------------------------------------------------
# explain and info
# ---------------------------------------------------------------------------------------------------------


def test_explain_prints_the_library_s_explanation(capsys):
    assert main([*EXPLAIN, "--dilation", "15", "--padding", "same"]) == 0
    expected = fastdil.explain((1, 32, 128, 128), (64, 32, 3, 3), dilation=15, padding="same")
    assert capsys.readouterr().out == f"{expected}\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [("4", 4), ("-1", -1), ("1,2", (1, 2)), ("1:2,3:4", ((1, 2), (3, 4))), ("same_lower", "same_lower")],
)
def test_explain_takes_every_form_of_padding(capsys, text, value):
    assert main([*EXPLAIN, f"--padding={text}", "--stride", "2", "--dilation", "1,2", "--bias"]) == 0
    explanation = fastdil.explain(
        (1, 32, 128, 128), (64, 32, 3, 3), padding=value, stride=2, dilation=(1, 2), has_bias=True
    )
    assert capsys.readouterr().out == f"{explanation}\n"


def test_explain_causal_signal(capsys):
    arguments = ["--x", "64,4096", "--w", "128,64,2", "--dilation", "512", "--padding", "causal"]
    assert main(["explain", *arguments, "--dtype", "float64", "--threads", "1"]) == 0
    output = capsys.readouterr().out
    assert all(name in output for name in fastdil.methods())


def test_info(capsys):
    assert main(["info"]) == 0
    output = capsys.readouterr().out
    machine = fastdil.machine()
    assert "not measured" not in output
    for expected in ("GFLOP/s", fastdil.__version__, machine.isa, machine.cpu, "numba", "scipy", "NUMBA_CACHE_DIR"):
        assert expected in output


def test_info_names_a_bad_environment_variable():
    run = child("info", env={**os.environ, "FASTDIL_ISA": "mmx"})
    assert (run.returncode, run.stdout) == (2, "")
    assert re.fullmatch(r"fastdil: error: FASTDIL_ISA='mmx': expected one of .*\n", run.stderr)


def test_info_reports_the_cache_directory(tmp_path):
    run = child("info", env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)})
    assert run.returncode == 0
    assert f"{tmp_path}" in run.stdout
    assert "(writable)" in run.stdout


# ---------------------------------------------------------------------------------------------------------
# the demo's numbers
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "dilation"), [((70, 9), 15), ((40, 37), 4), ((5, 5), 7), ((301,), 15)])
def test_float64_layer_matches_the_oracle(monkeypatch, size, dilation):
    monkeypatch.setattr(demo, "BAND", 128)  # several bands
    rng = np.random.default_rng(0)
    x = rng.standard_normal((32, *size)).astype(np.float32)
    w = demo.layer_weights(len(size))
    y, largest = demo.float64_layer(x, w, dilation)
    truth = naive.conv(x[None].astype(float), w.astype(float), padding="same", dilation=dilation)[0]
    np.testing.assert_allclose(y, truth.astype(float), rtol=0, atol=1e-12)
    assert np.isclose(largest, float(naive.magnitude(x[None], w, padding="same", dilation=dilation)))


@pytest.mark.parametrize("rank", [1, 2])
def test_gabor_bank(rank):
    bank = demo.gabor_bank(rank).reshape(8, -1)
    np.testing.assert_allclose(np.linalg.norm(bank, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(bank.sum(axis=1), 0, atol=1e-6)
    assert np.linalg.matrix_rank(bank) == 8  # eight different filters


def test_demo_on_the_photograph(capsys, tmp_path):
    saved = tmp_path / "out.npy"
    output = small_demo(capsys, "--save", saved)
    for expected in (
        "128 x 192 pixels",
        "31 x 31",
        "18,432",
        "1,968,128",
        "452,984,832",
        "GFLOP/s",
        "float64",
    ):
        assert expected in output
    explanation = fastdil.explain((1, 32, 128, 192), (64, 32, 3, 3), padding="same", dilation=15)
    measured = output.split("measured")[1]
    for row in explanation.candidates:
        assert (row.name in measured) == (row.verdict != "refused")
    assert f"{explanation.chosen} *" in measured
    shares = [float(share) for share in re.findall(r"([0-9.]+)%", measured)]
    assert shares
    assert max(shares) <= 100  # of the error bound
    _, plane = inputs.photograph()
    exact, _ = demo.float64_layer(demo.features(plane, None)[0], demo.layer_weights(2), 15)
    result = np.load(saved)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, exact, atol=1e-5)


def test_demo_forced_method_runs_alone(capsys):
    measured = small_demo(capsys, "--method", "direct", "--threads", "1", "--dilation", "3").split("measured")[1]
    assert "direct *" in measured
    assert not any(name in measured for name in fastdil.methods() if name != "direct")


def test_demo_skips_what_would_take_too_long(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "PATIENCE", 0.0)
    np.save(tmp_path / "small.npy", np.eye(20))
    output = small_demo(capsys, tmp_path / "small.npy")
    assert "was not run: about" in output


def test_demo_cannot_write_its_result(capsys, tmp_path, monkeypatch):
    np.save(tmp_path / "small.npy", np.eye(20))

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo.np, "save", refuse)
    assert main(["demo", "--repeat", "1", str(tmp_path / "small.npy"), "--save", str(tmp_path / "out.npy")]) == 2
    assert capsys.readouterr().err.endswith("out.npy: No space left on device\n")


def test_progress_line_on_a_terminal_only(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream, expected in ((Terminal(), "\r\x1b[Khalf way\r\x1b[K"), (io.StringIO(), "")):
        monkeypatch.setattr(sys, "stderr", stream)
        with Progress() as progress:
            progress.show("half way")
        assert stream.getvalue() == expected


# ---------------------------------------------------------------------------------------------------------
# processes: closed pipe, Ctrl-C
# ---------------------------------------------------------------------------------------------------------


def test_interrupt_in_process(monkeypatch, capsys):
    monkeypatch.setattr(demo, "run", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    before = signal.getsignal(signal.SIGINT)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == "fastdil: interrupted\n"
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("arguments", [["demo", "--repeat", "1"], ["--help"], ["explain", "--help"]])
def test_closed_pipe_leaves_no_traceback(arguments):
    command = [sys.executable, "-m", "fastdil", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(timeout=300) in (0, 141)
    assert errors == b""


@pytest.mark.skipif(not hasattr(signal, "SIGINT") or os.name == "nt", reason="POSIX signals")
def test_interrupt_is_one_line():
    command = [sys.executable, "-m", "fastdil", "demo", "--repeat", "1000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("input")  # next it compiles or loads kernels
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (130, "fastdil: interrupted\n")


# ---------------------------------------------------------------------------------------------------------
# files
# ---------------------------------------------------------------------------------------------------------

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8)
COLOUR = np.stack([RAMP, RAMP[::-1], 255 - RAMP], axis=-1)
GREY = COLOUR @ inputs.LUMA


def unit(values) -> np.ndarray:
    """What every reader makes of its values: float32 with the largest magnitude 1."""
    values = np.asarray(values, dtype=float)
    return (values / np.abs(values).max()).astype(np.float32)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (RAMP, unit(RAMP)),
        (RAMP.astype(">u2") * 1000, unit(RAMP)),
        (RAMP.astype(bool), unit(RAMP.astype(bool))),
        (RAMP.astype(np.float16), unit(RAMP)),
        (np.asfortranarray(-RAMP.astype(float) * 1e300), unit(-RAMP.astype(float))),
        (COLOUR, unit(GREY)),
        (np.moveaxis(COLOUR, -1, 0), unit(GREY)),
        (np.dstack([COLOUR, RAMP]), unit(GREY * RAMP)),
        (RAMP[None], unit(RAMP)),
        (np.stack([RAMP, RAMP, 4 * RAMP, RAMP, RAMP]), unit(RAMP)),
        (np.broadcast_to(RAMP, (32, 6, 8)), unit(np.broadcast_to(RAMP, (32, 6, 8)))),
        (RAMP[0], unit(RAMP[0])),
        (np.zeros((4, 5)), np.zeros((4, 5))),
    ],
)
def test_numpy_files(tmp_path, array, expected):
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", anything=array)
    for name in ("a.npy", "a.npz"):
        title, plane = inputs.load(str(tmp_path / name))
        assert (title, plane.dtype) == (name, np.float32)
        np.testing.assert_allclose(plane, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("array", "mode", "expected"),
    [
        (RAMP, None, unit(RAMP)),
        (RAMP.astype(np.uint16) * 1000, None, unit(RAMP)),
        (COLOUR, None, unit(GREY)),
        (np.dstack([COLOUR, RAMP]), None, unit(GREY * RAMP)),
        (np.dstack([RAMP, RAMP]), "LA", unit(RAMP.astype(float) ** 2)),
        (RAMP > 7, None, unit(RAMP > 7)),
        (RAMP, "P", unit(RAMP)),
    ],
)
def test_png_files(tmp_path, array, mode, expected):
    image = pytest.importorskip("PIL.Image")
    picture = image.fromarray(array)
    if mode == "P":
        picture = picture.convert("RGB").convert("P", palette=image.Palette.ADAPTIVE, colors=256)
    assert mode in (None, picture.mode)
    picture.save(tmp_path / "a.png")
    _, plane = inputs.load(str(tmp_path / "a.png"))
    np.testing.assert_allclose(plane, expected, atol=1e-6)


def test_jpg_file_through_the_demo(capsys, tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.fromarray(COLOUR).resize((40, 30)).save(tmp_path / "photo.JPG")
    assert "photo.JPG, 30 x 40 pixels" in small_demo(capsys, tmp_path / "photo.JPG", "--dilation", "2")


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize(("dtype", "offset"), [("uint8", 128), ("int16", 0), ("int32", 0), ("float32", 0)])
def test_wav_files(tmp_path, dtype, offset, channels):
    wavfile = pytest.importorskip("scipy.io.wavfile")
    samples = (np.arange(100 * channels).reshape(100, channels) % 37 + 20).astype(dtype)
    wavfile.write(tmp_path / "a.wav", 8000, samples if channels > 1 else samples[:, 0])
    _, signal_ = inputs.load(str(tmp_path / "a.wav"))
    np.testing.assert_allclose(signal_, unit((samples.astype(float) - offset).mean(axis=1)), atol=1e-6)


def test_wav_through_the_demo(capsys, tmp_path):
    with wave.open(str(tmp_path / "speech.wav"), "wb") as file:
        file.setparams((2, 2, 16000, 0, "NONE", ""))
        file.writeframes((np.sin(np.arange(4000)) * 3e4).astype("<i2").tobytes())
    output = small_demo(capsys, tmp_path / "speech.wav", "--save", tmp_path / "out.npy")
    assert "speech.wav, 2000 samples" in output
    assert "6,144; a dense 31 kernel has 63,488" in output
    assert np.load(tmp_path / "out.npy").shape == (64, 2000)


def test_features_go_into_the_layer_as_they_are(capsys, tmp_path):
    x = np.random.default_rng(1).integers(-9, 9, (32, 20, 30)).astype(np.float32)
    np.save(tmp_path / "features.npy", x)
    output = small_demo(capsys, tmp_path / "features.npy", "--save", tmp_path / "out.npy", "--dilation", "2")
    assert "Gabor" not in output
    truth = naive.conv((x / np.abs(x).max())[None], demo.layer_weights(2), padding="same", dilation=2)[0]
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), truth.astype(float), atol=1e-5)


def _npy_header(shape) -> bytes:
    """A .npy file that claims this shape and holds no data."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue()


def _zip_of(member: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", member)
    return file.getvalue()


def _npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def _npz(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _png_claiming(width: int, height: int) -> bytes:
    """A PNG of this size whose pixels are missing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


BAD_FILES = [
    ("a.tiff", b"", "expected a file ending in .npy, .npz, .png, .jpg, .jpeg, .wav"),
    ("empty.npy", b"", "not a readable NumPy file"),
    ("noise.npy", b"not an array", "not a readable NumPy file"),
    ("noise.npz", b"PK\x03\x04 not a zip", "not a readable NumPy file"),
    ("short.npy", _npy(np.ones((50, 50)))[:500], "not a readable NumPy file"),
    ("objects.npy", _npy(np.array([{}, []], dtype=object)), "without Python objects"),
    ("objects.npz", _zip_of(_npy(np.array([{}, []], dtype=object))), "without Python objects"),
    ("two.npz", _npz(a=np.ones(3), b=np.ones(3)), "holds 2 arrays: expected one"),
    ("none.npz", _npz(), "holds 0 arrays: expected one"),
    ("stranger.npz", _zip_of(b"hello"), "'a' is not an array|not a readable NumPy file"),
    ("false.npz", _zip_of(_npy_header((10**12,))), "not a readable NumPy file|does not fit into memory"),
    ("false.npy", _npy_header((10**12,)), "not a readable NumPy file"),
    ("complex.npy", _npy(np.ones((4, 4), complex)), "dtype complex128: expected real numbers"),
    ("text.npy", _npy(np.array(["a", "b"])), "dtype <U1: expected real numbers"),
    ("scalar.npy", _npy(np.float64(3)), re.escape("shape (): expected (L,), (H, W)")),
    ("four.npy", _npy(np.ones((2, 3, 4, 5))), re.escape("shape (2, 3, 4, 5): expected")),
    ("channels.npy", _npy(np.ones((33, 8, 8))), re.escape("shape (33, 8, 8): expected")),
    ("nothing.npy", _npy(np.ones((0, 5))), "0 pixels or samples: expected 1 to"),
    ("nothing3.npy", _npy(np.ones((0, 5, 5))), "0 pixels or samples: expected 1 to"),
    ("nan.npy", _npy(np.array([[1.0, np.nan]])), "holds NaN or infinite values"),
    ("inf.npy", _npy(np.full((3, 3, 3), -np.inf)), "holds NaN or infinite values"),
    ("huge.npy", _npy(np.zeros(2**21 + 1, bool)), "2,097,153 pixels or samples: expected 1 to 2,097,152"),
    ("noise.png", b"not a picture", "not a readable picture"),
    ("cut.png", _png_claiming(8, 8), "image file is truncated"),
    ("huge.png", _png_claiming(40000, 100), "4,000,000 pixels or samples: expected 1 to"),
    ("bomb.png", _png_claiming(2**20, 2**20), "not a readable picture|pixels or samples"),
    ("noise.wav", b"not a sound", "not a readable WAV file"),
    ("empty.wav", b"", "not a readable WAV file"),
    ("short.wav", b"RIFF\x24\x00\x00\x00WAVEfmt ", "not a readable WAV file"),
]


@pytest.mark.parametrize(("name", "content", "reason"), BAD_FILES, ids=[row[0] for row in BAD_FILES])
def test_bad_file_is_one_line(capsys, tmp_path, name, content, reason):
    if name.endswith(".png"):
        pytest.importorskip("PIL")
    path = tmp_path / name
    path.write_bytes(content)
    message = error_line(capsys, "demo", str(path))
    assert message.startswith(str(path))
    assert re.search(reason, message), message


def test_missing_folder_and_oversized_files(capsys, tmp_path, monkeypatch):
    assert "No such file" in error_line(capsys, "demo", str(tmp_path / "absent.npy"))
    (tmp_path / "folder.npy").mkdir()
    assert "expected a file, not a folder" in error_line(capsys, "demo", str(tmp_path / "folder.npy"))
    np.save(tmp_path / "a.npy", RAMP)
    np.savez_compressed(tmp_path / "a.npz", np.zeros(10**5))
    monkeypatch.setattr(inputs, "MOST_BYTES", 10**5)
    assert "800,128 bytes unpacked: expected at most 100,000" in error_line(capsys, "demo", str(tmp_path / "a.npz"))
    monkeypatch.setattr(inputs, "MOST_BYTES", 10)
    assert "expected at most 10" in error_line(capsys, "demo", str(tmp_path / "a.npy"))


def test_picture_without_pillow(monkeypatch, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(CliError, match=r"needs Pillow \(pip install pillow\)"):
        inputs.load(str(tmp_path / "a.png"))
