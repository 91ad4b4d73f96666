"""Files that `fastdil demo` reads: arrays, photographs and sounds, checked before they are decoded.

Every reader turns its file into a float32 array of shape ``(L,)`` (a sound), ``(H, W)`` (a grey image) or
``(32, H, W)`` (channels that go into the layer as they are), scaled so that the largest magnitude is 1.
"""

from __future__ import annotations

import struct
import warnings
import zipfile
import zlib
from importlib import resources
from pathlib import Path

import numpy as np

from fastdil.cli.terminal import CliError

#: Input channels of the demo's layer; an array with this many is taken as features, not as a picture.
CHANNELS = 32
#: Pixels or samples of one channel. At this size the layer's 32 + 64 float32 channels and their float64
#: counterparts take about 2 GiB.
MOST_SAMPLES = 2**21
#: Bytes of a file, before anything is read from it.
MOST_BYTES = 2**29

#: Rec. 601 luma: what "grey" means for a colour photograph.
LUMA = np.array([0.299, 0.587, 0.114])

PICTURES = (".png", ".jpg", ".jpeg")
KINDS = (".npy", ".npz", *PICTURES, ".wav")
SHAPES = f"(L,), (H, W), (H, W, 3), (H, W, 4) or (C, H, W) with C up to {CHANNELS}"


def photograph() -> tuple[str, np.ndarray]:
    """The photograph that comes with the package: its title, and its grey values."""
    data = resources.files("fastdil") / "data" / "coffee.npz"
    with data.open("rb") as file, np.load(file) as archive:
        return "photograph of a cup of coffee", _grey(archive["image"], data.name)


def load(name: str) -> tuple[str, np.ndarray]:
    """The file `name`: a title, and an array as described at the head of this module.

    Raises
    ------
    CliError
        If the file cannot be read or is not what the demo can use. The text names the file and the reason.
    """
    path = Path(name)
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise CliError(f"{name}: expected a file ending in {', '.join(KINDS)}")
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise CliError(f"{name}: expected a file, not a folder or a device")
        if size > MOST_BYTES:
            raise CliError(f"{name}: {size:,} bytes: expected at most {MOST_BYTES:,}")
        if kind == ".wav":
            return path.name, _sound(path)
        pixels = _picture(path) if kind in PICTURES else _array(path)
    except CliError:
        raise
    except OSError as error:
        raise CliError(f"{name}: {error.strerror or error}") from None
    except MemoryError:
        raise CliError(f"{name}: does not fit into memory") from None
    return path.name, _grey(pixels, name)


# ---------------------------------------------------------------------------------------------------------
# formats
# ---------------------------------------------------------------------------------------------------------


def _array(path: Path) -> np.ndarray:
    """The array of a .npy file, or the only one of an .npz archive; never unpickles."""
    try:
        if path.suffix.lower() == ".npz":
            return _archived(path)
        # Mapped, so that a wrong or huge array is refused by its header alone.
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise CliError(f"{path}: not a readable NumPy file without Python objects ({_line(error)})") from None


def _archived(path: Path) -> np.ndarray:
    with zipfile.ZipFile(path) as archive:  # np.load leaves the file open where this raises
        unpacked = max((member.file_size for member in archive.infolist()), default=0)
    if unpacked > MOST_BYTES:
        raise CliError(f"{path}: {unpacked:,} bytes unpacked: expected at most {MOST_BYTES:,}")
    with np.load(path, allow_pickle=False) as arrays:
        if len(arrays.files) != 1:
            raise CliError(f"{path}: holds {len(arrays.files)} arrays: expected one")
        array = arrays[arrays.files[0]]
    if not isinstance(array, np.ndarray):  # bytes: a member that is no .npy file
        raise CliError(f"{path}: {arrays.files[0]!r} is not an array")
    return array


def _picture(path: Path) -> np.ndarray:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise CliError(f"{path}: reading {path.suffix} needs Pillow (pip install pillow)") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of sizes that are refused here anyway
            image = Image.open(path)
        with image:
            _check_size(path, image.width * image.height)
            if image.mode in ("L", "RGB", "RGBA", "F", "I") or image.mode.startswith("I;16"):
                return np.asarray(image)
            is_transparent = "A" in image.mode or "transparency" in image.info
            return np.asarray(image.convert("RGBA" if is_transparent else "RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise CliError(f"{path}: not a readable picture ({_line(error)})") from None


def _sound(path: Path) -> np.ndarray:
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks that hold no samples
            _, samples = wavfile.read(path)
    except (ValueError, EOFError, struct.error) as error:
        raise CliError(f"{path}: not a readable WAV file ({_line(error)})") from None
    _check_size(path, len(samples))
    mono = samples.astype(np.float64)
    if samples.dtype == np.uint8:
        mono -= 128  # 8-bit sounds are stored around 128
    return _scaled(mono.reshape(len(samples), -1).mean(axis=1), str(path))


# ---------------------------------------------------------------------------------------------------------
# checks and conversion
# ---------------------------------------------------------------------------------------------------------


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _check_size(path: str | Path, samples: int) -> None:
    if not 1 <= samples <= MOST_SAMPLES:
        raise CliError(f"{path}: {samples:,} pixels or samples: expected 1 to {MOST_SAMPLES:,}")


def _grey(pixels: np.ndarray, name: str) -> np.ndarray:
    """One plane from grey, colour or many-channel pixels; 32 channels are kept."""
    if pixels.dtype.kind not in "biuf":
        raise CliError(f"{name}: dtype {pixels.dtype}: expected real numbers")
    shape = pixels.shape
    colour_last = pixels.ndim == 3 and shape[-1] in (3, 4)
    if not 1 <= pixels.ndim <= 3 or (pixels.ndim == 3 and not colour_last and shape[0] > CHANNELS):
        raise CliError(f"{name}: shape {shape}: expected {SHAPES}")
    channels = 1 if pixels.ndim < 3 else shape[-1] if colour_last else shape[0]
    _check_size(name, pixels.size // max(channels, 1))
    values = np.asarray(pixels, dtype=np.float64)
    if values.ndim == 3 and channels != CHANNELS:
        values = np.moveaxis(values, -1, 0) if colour_last else values
        grey = np.tensordot(LUMA, values[:3], 1) if channels in (3, 4) else values.mean(axis=0)
        values = grey * values[3] if channels == 4 else grey  # transparent pixels become black
    return _scaled(values, name)


def _scaled(values: np.ndarray, name: str) -> np.ndarray:
    largest = np.abs(values).max()
    if not np.isfinite(largest):
        raise CliError(f"{name}: holds NaN or infinite values: expected finite ones")
    return np.asarray(values / (largest or 1), dtype=np.float32)
