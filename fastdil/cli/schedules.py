"""`fastdil design` and `fastdil analyse`: schedules of dilations, from the theory."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastdil import theory
from fastdil.cli.terminal import CliError, width
from fastdil.theory.tables import aligned

#: Holes that are listed.
_SHOWN = 20


def run(arguments: argparse.Namespace) -> None:
    """Print what the command asks for."""
    try:
        print(_design(arguments) if arguments.command == "design" else _analyse(arguments))
    except (TypeError, ValueError) as error:
        raise CliError(str(error)) from None


def _design(arguments: argparse.Namespace) -> str:
    found = theory.design_schedule(
        arguments.kernel,
        arguments.receptive_field,
        layers=arguments.layers,
        max_dilation=arguments.max_dilation,
        exact=arguments.exact,
        count=arguments.count,
    )
    rows = [("layers", "receptive field", "variation", "proven best", "dilations")]
    for schedule in found:
        proven = "yes" if schedule.optimal else "no"
        figures = (str(len(schedule.dilations)), str(schedule.receptive_field), f"{schedule.coverage.cv:.4f}", proven)
        rows.append((*figures, " ".join(map(str, schedule.dilations))))
    return aligned(rows, width())


def _analyse(arguments: argparse.Namespace) -> str:
    stack = [theory.Layer(arguments.kernel, dilation=d) for d in arguments.dilations]
    fields = theory.receptive_fields(stack)
    found = theory.coverage(stack)
    influence = theory.effective_receptive_field(stack)
    ok, gap = theory.hdc_check(arguments.dilations, arguments.kernel)
    holes = " ".join(map(str, found.holes[:_SHOWN])) + (" ..." if len(found.holes) > _SHOWN else "")
    rows = [
        ("receptive field", str(found.size)),
        ("after each layer", " ".join(str(field.size) for field in fields)),
        ("seen", f"{found.seen} of {found.size} ({float(found.fraction):.1%}), in 2-D {float(found.fraction**2):.1%}"),
        ("holes", holes or "none"),
        ("gcd of dilations", str(found.gcd)),
        ("path counts", f"variation {found.cv:.4f}, entropy {found.entropy_ratio:.4f} of 1"),
        ("influence", f"standard deviation {influence.std:.4g} samples, {influence.size} positions above 4.55 %"),
        ("HDC test", f"{'passed' if ok else 'failed'}: largest gap {gap}, kernel {arguments.kernel}"),
    ]
    if found.holes and arguments.kernel > 1:
        repaired = theory.repair_schedule(arguments.dilations, arguments.kernel)
        text = f"{' '.join(map(str, repaired.dilations))} (receptive field {repaired.receptive_field})"
        rows.append(("nearest without holes", text))
    if arguments.plot is not None:
        rows.append(("picture", _draw(stack, arguments.plot)))
    return aligned(rows, width())


def _draw(stack: list[theory.Layer], name: str) -> str:
    if not Path(name).parent.is_dir():
        raise CliError(f"--plot: expected a file in an existing folder, not {name!r}")
    try:
        theory.plot_paths(stack).figure.savefig(name, dpi=120)
    except ImportError:
        raise CliError('--plot: expected Matplotlib to be installed: pip install "fastdil[plot]"') from None
    except OSError as error:
        raise CliError(f"--plot: cannot write {name!r}: {error.strerror}") from None
    return name
