"""MiniRocket beside aeon's: rows of `benchmarks.pipelines`.

Before anything is timed, features must be equal bit for bit when both use aeon's biases. Without aeon, fastdil is timed
alone.
"""

from __future__ import annotations

import functools
import importlib.util

import numpy as np

from benchmarks.checked import Checked

#: Series, channels, samples.
SHAPES = ((256, 1, 512), (64, 1, 2048), (32, 3, 512))
#: Name of a row -> its shape, and whether it is `fit` or `transform` that is timed.
ROWS = {
    f"minirocket_{step}_{'x'.join(map(str, shape))}": (shape, step) for shape in SHAPES for step in ("fit", "transform")
}


def make_series(shape: tuple[int, int, int]) -> np.ndarray:
    """Random walks: neighbouring samples are alike, as in real series."""
    return np.random.default_rng(0).standard_normal(shape).cumsum(axis=2).astype(np.float32)


def calls(name: str, threads: int, dtype: str = "float32") -> dict[str, Checked]:
    """What to time; errors are shares of features that are not aeon's. Features are float32: no other rows."""
    import fastdil

    shape, step = ROWS[name]
    if dtype != "float32":
        return {}
    x = make_series(shape)
    ours = fastdil.MiniRocket(random_state=0, threads=threads).fit(x)
    transformers, errors = {"fastdil": ours}, dict[str, str]()
    if importlib.util.find_spec("aeon"):
        from aeon.transformations.collection.convolution_based import MiniRocket

        theirs = transformers["aeon"] = MiniRocket(random_state=0, n_jobs=threads).fit(x)
        expected = np.asarray(theirs.transform(x))
        own = float(np.mean(ours.transform(x) != expected))
        assert own < 1e-3, f"{shape}: {own:.2%} of the features differ with biases of our own"
        errors["fastdil"] = f"{own:.2%} differ"
        ours.biases_ = theirs.parameters[4]
        assert np.array_equal(ours.transform(x), expected), f"{shape}: features differ"
    return {
        candidate: Checked(functools.partial(getattr(each, step), x), errors.get(candidate))
        for candidate, each in transformers.items()
    }
