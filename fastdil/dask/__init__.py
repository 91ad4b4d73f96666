"""Dilated convolution and the a trous transform of `dask.array`: larger than memory, on many threads or machines.

Each chunk of the result reads the chunks of the input that its taps touch, as many as these are, and pads only where
the whole array ends. Nothing is computed before `compute`, `store` or the like. Needs dask (``fastdil[dask]``).
"""

from fastdil.dask.atrous import atrous_transform, inverse_atrous_transform
from fastdil.dask.convolution import conv, convolve, correlate

__all__ = ["atrous_transform", "conv", "convolve", "correlate", "inverse_atrous_transform"]
