"""MiniRocket beside aeon's: ``python -m benchmarks.rocket [--threads N] [--repeat N]``.

Before anything is timed, features must be equal bit for bit when both use aeon's biases. Without aeon, fastdil is timed
alone.
"""

from __future__ import annotations

import argparse
import importlib.util

import numpy as np

from benchmarks import timing

#: Series, channels, samples.
SHAPES = ((256, 1, 512), (64, 1, 2048), (32, 3, 512))


def make_series(shape: tuple[int, int, int]) -> np.ndarray:
    """Random walks: neighbouring samples are alike, as in real series."""
    return np.random.default_rng(0).standard_normal(shape).cumsum(axis=2).astype(np.float32)


def calls(shape: tuple[int, int, int], threads: int) -> tuple[dict, dict]:
    """What to time, for `fit` and for `transform`; the results have been compared."""
    import fastdil

    x = make_series(shape)
    ours = fastdil.MiniRocket(random_state=0, threads=threads).fit(x)
    fits, transforms = {"fastdil": lambda: ours.fit(x)}, {"fastdil": lambda: ours.transform(x)}
    if importlib.util.find_spec("aeon"):
        from aeon.transformations.collection.convolution_based import MiniRocket

        theirs = MiniRocket(random_state=0, n_jobs=threads).fit(x)
        expected = np.asarray(theirs.transform(x))
        own = float(np.mean(ours.transform(x) != expected))
        ours.biases_ = theirs.parameters[4]
        assert np.array_equal(ours.transform(x), expected), f"{shape}: features differ"
        assert own < 1e-3, f"{shape}: {own:.2%} of the features differ with biases of our own"
        fits["aeon"], transforms["aeon"] = lambda: theirs.fit(x), lambda: theirs.transform(x)
    return fits, transforms


def main() -> None:
    """Time every shape and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=timing.granted_cores())
    parser.add_argument("--repeat", type=int, default=9)
    arguments = parser.parse_args()
    if not 1 <= arguments.threads <= timing.granted_cores():
        parser.error(f"--threads {arguments.threads}: expected 1 to {timing.granted_cores()}")
    timing.bind_to_cores(arguments.threads)
    print(f"9996 float32 features, {arguments.threads} threads; milliseconds: median (least)")
    for shape in SHAPES:
        for name, candidates in zip(("fit", "transform"), calls(shape, arguments.threads), strict=True):
            samples = timing.interleaved(candidates, arguments.repeat)
            cells = [f"{k} {1e3 * s.median:.1f} ({1e3 * min(s.seconds):.1f})" for k, s in samples.items()]
            if "aeon" in samples:
                cells.append(f"aeon / fastdil {samples['aeon'].median / samples['fastdil'].median:.2f}")
            print(f"{shape!s:16} {name:10} {'   '.join(cells)}")


if __name__ == "__main__":
    main()
