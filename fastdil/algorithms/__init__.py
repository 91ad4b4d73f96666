"""The registry: one file per algorithm, one line per algorithm.

Whatever is listed here is dispatched, explained, tested and timed. The order is that of `fastdil.methods`; the last
resort comes first, because it is the specification of the others.
"""

from __future__ import annotations

from fastdil.algorithms.amx import Amx
from fastdil.algorithms.base import Algorithm
from fastdil.algorithms.direct import Direct
from fastdil.algorithms.fft import Fft
from fastdil.algorithms.im2col import Im2col
from fastdil.algorithms.reference import Reference
from fastdil.algorithms.winograd import Winograd

#: Every algorithm, in registry order.
ALGORITHMS: dict[str, Algorithm] = {
    algorithm.name: algorithm for algorithm in (Reference(), Direct(), Im2col(), Fft(), Winograd(), Amx())
}


def methods() -> tuple[str, ...]:
    """Names of the methods that can be forced, in registry order.

    Examples
    --------
    >>> methods()
    ('reference', 'direct', 'im2col', 'fft', 'winograd', 'amx')
    """
    return tuple(ALGORITHMS)
