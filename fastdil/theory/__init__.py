"""What stacks of dilated convolutions see, count and cost: receptive fields, coverage, phases, schedules.

Exact where the answer is rational (Python ints and `fractions.Fraction`). Importing it loads neither Numba nor SciPy:
names are fetched on first use.

>>> from fastdil import theory
>>> theory.effective_kernel_size(3, 15)
31
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

#: Public name -> module of this package that holds it.
_HOME = {
    **dict.fromkeys(("Layer", "Pool", "Transposed", "Upsample"), "layers"),
    **dict.fromkeys(("effective_kernel_size", "output_size", "tap_positions"), "geometry"),
    **dict.fromkeys(("ReceptiveField", "receptive_field", "receptive_fields"), "receptive"),
    **dict.fromkeys(("Node", "receptive_field_graph"), "graphs"),
    "path_counts": "paths",
    **dict.fromkeys(("Coverage", "coverage", "gridding_gcd", "hdc_check", "is_hole_free", "is_uniform"), "gridding"),
    **dict.fromkeys(
        ("checkerboard_frequency", "checkerboard_period", "input_read_fraction", "phase_sequence"), "phases"
    ),
    **dict.fromkeys(("Comparison", "compare"), "comparison"),
    **dict.fromkeys(("Cost", "LayerCost", "cost"), "costs"),
    "valid_tap_fraction": "taps",
    **dict.fromkeys(("Schedule", "design_schedule", "repair_schedule"), "schedules"),
    **dict.fromkeys(("Influence", "effective_receptive_field", "erf_std", "measured_influence"), "influence"),
    **dict.fromkeys(("KnownModel", "known_model", "known_models"), "models"),
    **dict.fromkeys(
        ("plot_compare", "plot_coverage", "plot_growth", "plot_gridding", "plot_paths", "plot_schedule"), "plots"
    ),
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fastdil.theory' has no attribute {name!r}")
    value = getattr(import_module(f"fastdil.theory.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from fastdil.theory.comparison import Comparison, compare
    from fastdil.theory.costs import Cost, LayerCost, cost
    from fastdil.theory.geometry import effective_kernel_size, output_size, tap_positions
    from fastdil.theory.graphs import Node, receptive_field_graph
    from fastdil.theory.gridding import Coverage, coverage, gridding_gcd, hdc_check, is_hole_free, is_uniform
    from fastdil.theory.influence import Influence, effective_receptive_field, erf_std, measured_influence
    from fastdil.theory.layers import Layer, Pool, Transposed, Upsample
    from fastdil.theory.models import KnownModel, known_model, known_models
    from fastdil.theory.paths import path_counts
    from fastdil.theory.phases import checkerboard_frequency, checkerboard_period, input_read_fraction, phase_sequence
    from fastdil.theory.plots import (
        plot_compare,
        plot_coverage,
        plot_gridding,
        plot_growth,
        plot_paths,
        plot_schedule,
    )
    from fastdil.theory.receptive import ReceptiveField, receptive_field, receptive_fields
    from fastdil.theory.schedules import Schedule, design_schedule, repair_schedule
    from fastdil.theory.taps import valid_tap_fraction
