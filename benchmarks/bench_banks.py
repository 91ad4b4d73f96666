"""asv: filter banks and MiniRocket."""

from __future__ import annotations

import numpy as np

from benchmarks.rocket import SHAPES, make_series


class MiniRocket:
    """fit and transform, by series, channels and samples."""

    params = (SHAPES,)
    param_names = ("shape",)
    timeout = 120

    def setup(self, shape: tuple[int, int, int]) -> None:
        """Fit and compile."""
        import fastdil

        self.x = make_series(shape)
        self.model = fastdil.MiniRocket(random_state=0).fit(self.x)
        assert self.model.transform(self.x).shape == (shape[0], 9996)

    def time_fit(self, shape: tuple[int, int, int]) -> None:
        """One fit."""
        self.model.fit(self.x)

    def time_transform(self, shape: tuple[int, int, int]) -> None:
        """One transform."""
        self.model.transform(self.x)


class FilterBank:
    """84 filters of nine taps at eight dilations on 16 series of 2048 samples, by pools."""

    params = (("responses", "max", "ppv", "all"),)
    param_names = ("pool",)

    def setup(self, pool: str) -> None:
        """Compile, and compare a pooled result with the pooled responses."""
        import fastdil

        random = np.random.default_rng(0)
        x = random.standard_normal((16, 2048)).astype(np.float32)
        taps = random.standard_normal((84, 9)).astype(np.float32)
        dilations = [1 << i for i in range(8)]
        pools = {"responses": None, "all": ("max", "mean", "ppv")}.get(pool, pool)
        self.call = lambda: fastdil.filter_bank(x, taps, dilations, pool=pools)
        if pool == "max":
            assert np.array_equal(self.call(), fastdil.filter_bank(x, taps, dilations).max(axis=-1))
        self.call()

    def time_bank(self, pool: str) -> None:
        """One call."""
        self.call()
