"""How the matrix products share the result among blocks, warps and threads."""

from __future__ import annotations

from dataclasses import dataclass

from fastdil.cuda import costs, pixels
from fastdil.cuda import geometry as G
from fastdil.cuda.base import Layout
from fastdil.cuda.device import Device
from fastdil.cuda.pixels import Band
from fastdil.problem import Problem


@dataclass(frozen=True)
class Tile:
    """Shape of a block's share of the result, output channels x pixels, and of the parts that it is cut into."""

    rows: int
    columns: int
    part_rows: int
    part_columns: int
    efficiency: float  #: of its inner loop, relative to the largest tile; estimated from its loads, not measured
    part_threads: int = 1  #: that compute a part together: one thread, or a warp

    @property
    def threads(self) -> int:
        return self.rows * self.columns // (self.part_rows * self.part_columns) * self.part_threads


@dataclass(frozen=True)
class Tiling:
    """A tile, and the bands of columns that it is used on."""

    method: str
    tile: Tile
    depth: int  #: channels that are staged at once
    bands: tuple[Band, ...]
    row_tiles: int
    column_tiles: int

    @classmethod
    def of(cls, method: str, problem: Problem, device: Device, tiles: tuple[Tile, ...], depth: int) -> Tiling:
        """The tiling with the shortest predicted time."""
        tilings = []
        for tile in tiles:
            if tile.threads <= device.block_threads:
                bands = pixels.best_bands(problem, tile.columns)
                columns = sum(pixels.tiles_of(problem, bands, tile.columns))
                tilings.append(cls(method, tile, depth, tuple(bands), -(-problem.group_out // tile.rows), columns))
        return min(tilings, key=lambda tiling: tiling.seconds(problem, device))

    def blocks(self, problem: Problem) -> int:
        return problem.groups * self.row_tiles * self.column_tiles

    def channel_blocks(self, problem: Problem) -> int:
        """Stages of `depth` channels that a tap takes."""
        return -(-problem.group_in // self.depth)

    def seconds(self, problem: Problem, device: Device, passes: int = 1, kind: str | None = None) -> float:
        """Of the product; `passes` times over, in units of another `kind` (`Device.peak_gflops`)."""
        computed = pixels.useful_taps(problem, list(self.bands), self.tile.columns)
        computed *= self.channel_blocks(problem) * self.depth * passes
        macs = problem.groups * self.row_tiles * self.tile.rows * self.tile.columns * computed / self.tile.efficiency
        return costs.roofline(self.method, device, problem, macs, self.blocks(problem), kind)

    def packs(self, problem: Problem) -> int:
        """Taps of tiles of weights."""
        return problem.groups * self.row_tiles * problem.taps

    def describe(self, problem: Problem, x_layout: Layout, y_layout: Layout) -> tuple[int, ...]:
        """All integers of the kernels."""
        return (
            *G.describe(problem, x_layout, y_layout),
            *pixels.describe(problem, list(self.bands), self.tile.columns),
            self.row_tiles,
            self.channel_blocks(problem),
        )
