"""The `fastdil` command: see a dilated layer run, ask which method would be chosen, design stacks, inspect the machine.

Only the standard library is imported here, so that ``fastdil --help`` and usage errors are immediate; each
command imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from fastdil._version import __version__
from fastdil.cli.terminal import INTERRUPTED, PIPE_CLOSED, CliError, quit_on_interrupt

DESCRIPTION = """\
Dilated (atrous) convolution on NumPy arrays: fast, and it says why it chose the method it chose."""

EPILOG = """\
examples:
  fastdil demo                                the textbook layer: 3 x 3, dilation 15, 32 -> 64 channels
  fastdil demo holiday.jpg --dilation 7       the same layer on your photograph (needs Pillow)
  fastdil demo speech.wav --save out.npy      in one dimension, and keep the 64 output channels
  fastdil explain --x 1,32,128,128 --w 64,32,3,3 --dilation 15 --padding same
  fastdil info

exit codes: 0 done, 1 unexpected failure, 2 bad argument or input file, 130 interrupted (Ctrl-C),
141 whoever read the output closed it."""

DEMO = """\
Run a dilated layer on real input and time every method that can do it.

The layer has 3 x 3 taps (3 for a sound), 32 input and 64 output channels, padding "same" and fixed random
weights. Its 32 input channels are Gabor filters of the photograph or sound, themselves computed by fastdil.
Each method's result is compared with a float64 one that NumPy computes without fastdil."""

DEMO_EPILOG = """\
files:
  .npy, .npz            (H, W), (H, W, 3), (H, W, 4), (C, H, W), or (L,) for a sound; an .npz holds one array;
                        (32, H, W) goes into the layer as it is
  .png, .jpg, .jpeg     8 or 16 bits, grey, RGB or RGBA (needs Pillow)
  .wav                  any number of channels, averaged

examples:
  fastdil demo
  fastdil demo holiday.jpg --method direct --threads 1
  fastdil demo features.npy --dilation 4 --save out.npy"""

EXPLAIN = """\
Print one row per method for a convolution given by its shapes: chosen, slower or refused, the reason, the
predicted time, the workspace. Nothing is convolved."""

EXPLAIN_EPILOG = """\
Numbers per axis are separated by commas, without spaces: --dilation 1,2. A padding is one number, one per
axis, one lo:hi pair per axis (0:30 or 1:2,3:4; write --padding=-1,2 when it starts with a minus), or a name:
valid, same, same_lower, and in one dimension causal and anticausal.

examples:
  fastdil explain --x 1,32,128,128 --w 64,32,3,3 --dilation 15 --padding 15
  fastdil explain --x 1,64,16384 --w 128,64,2 --dilation 512 --padding causal
  fastdil explain --x 1,256,64,64 --w 256,1,3,3 --groups 256 --dilation 2 --padding same --dtype float64"""


DESIGN = """\
Find dilations with which a stack of equal kernels, stride 1, reaches a receptive field without holes:
fewest layers first, then the most even path counts."""

DESIGN_EPILOG = """\
examples:
  fastdil design --kernel 3 --receptive-field 1000
  fastdil design --kernel 3 --receptive-field 1001 --exact --count 3
  fastdil design --kernel 2 --receptive-field 4096 --layers 16 --max-dilation 512"""

ANALYSE = """\
What a stack of dilated layers, stride 1, sees: its field after each layer, holes, evenness, influence,
and the nearest schedule without holes."""

ANALYSE_EPILOG = """\
examples:
  fastdil analyse 1 2 4 8 --kernel 3
  fastdil analyse 2 4 --kernel 3 --plot out.png     (with Matplotlib: the extra "plot")"""

INFO = """\
Print versions, instruction set, caches, threads, where compiled code is kept, and the environment
variables that change any of it."""

THREADS = "threads (default: all that this process may use)"


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise CliError(f"{message} (see {self.prog} --help)")


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected an integer >= 1, not {text!r}")
    return number


def _ints(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected integers separated by commas, not {text!r}") from None


def _int_or_ints(text: str) -> int | tuple[int, ...]:
    numbers = _ints(text)
    return numbers if "," in text else numbers[0]


def _padding(text: str) -> object:
    """A padding name, an int, one int per axis, or one ``lo:hi`` pair per axis."""
    if text.isidentifier():
        return text
    if ":" not in text:
        return _int_or_ints(text)
    try:
        return tuple(tuple(int(end) for end in pair.split(":")) for pair in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected lo:hi pairs separated by commas, not {text!r}") from None


def _build_parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog="fastdil", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"fastdil {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    demo = commands.add_parser(
        "demo",
        help="run and time a dilated layer on a photograph or a file",
        description=DEMO,
        epilog=DEMO_EPILOG,
        formatter_class=raw,
    )
    _add_demo_options(demo)

    explain = commands.add_parser(
        "explain",
        help="which method would run for these shapes, and why",
        description=EXPLAIN,
        epilog=EXPLAIN_EPILOG,
        formatter_class=raw,
    )
    _add_explain_options(explain)

    design = commands.add_parser(
        "design",
        help="dilations that reach a receptive field without holes",
        description=DESIGN,
        epilog=DESIGN_EPILOG,
        formatter_class=raw,
    )
    _add_design_options(design)

    analyse = commands.add_parser(
        "analyse",
        help="what a stack of dilations sees, and what it misses",
        description=ANALYSE,
        epilog=ANALYSE_EPILOG,
        formatter_class=raw,
    )
    _add_analyse_options(analyse)

    commands.add_parser(
        "info",
        help="what fastdil found on this machine",
        description=INFO,
        formatter_class=raw,
    )
    return parser


def _add_demo_options(demo: argparse.ArgumentParser) -> None:
    add = demo.add_argument
    add("file", nargs="?", metavar="FILE", help="input (default: a photograph that comes with fastdil)")
    add("--method", default="auto", metavar="NAME", help="run this method only (default: all)")
    add("--threads", type=_positive, metavar="N", help=THREADS)
    add("--dilation", type=_positive, default=15, metavar="N", help="spacing of the taps (default: 15)")
    add(
        "--repeat",
        type=_positive,
        default=7,
        metavar="N",
        help="timed runs per method; slow ones do fewer (default: 7)",
    )
    add("--save", metavar="OUT.npy", help="save the result, float32, channels first")


def _add_explain_options(explain: argparse.ArgumentParser) -> None:
    add = explain.add_argument
    add("--x", type=_ints, required=True, metavar="SHAPE", help="of the input: N,C,... or C,...")
    add("--w", type=_ints, required=True, metavar="SHAPE", help="of the weights: O, C / groups, taps per axis")
    add("--stride", type=_int_or_ints, default=1, metavar="S", help="output step (default: 1)")
    add("--padding", type=_padding, default=0, metavar="P", help="widths or a name, see below (default: 0)")
    add("--dilation", type=_int_or_ints, default=1, metavar="D", help="tap spacing; 1 is dense (default: 1)")
    add("--groups", type=int, default=1, metavar="G", help="channel groups (default: 1)")
    modes = "zeros, reflect, replicate, circular or symmetric (default: zeros)"
    add("--padding-mode", default="zeros", metavar="MODE", help=modes)
    add("--bias", dest="has_bias", action="store_true", help="the layer has a bias")
    add("--activation", metavar="NAME", help="relu, leaky_relu, tanh, sigmoid, silu or gelu (default: none)")
    add("--dtype", default="float32", metavar="DTYPE", help="NumPy name of the data type (default: float32)")
    add("--precision", metavar="P", help="highest, high or medium (default: highest)")
    add("--method", default="auto", metavar="NAME", help="force a method (default: auto)")
    add("--threads", type=_positive, metavar="N", help=THREADS)


def _add_design_options(design: argparse.ArgumentParser) -> None:
    add = design.add_argument
    add("--kernel", type=_positive, required=True, metavar="K", help="taps of every layer, at least 2")
    add("--receptive-field", type=_positive, required=True, metavar="R", help="samples to reach, at least")
    add("--exact", action="store_true", help="reach exactly R")
    add("--layers", type=_positive, metavar="N", help="at most this many layers")
    add("--max-dilation", type=_positive, metavar="D", help="no dilation above this")
    add("--count", type=_positive, default=5, metavar="N", help="schedules shown (default: 5)")


def _add_analyse_options(analyse: argparse.ArgumentParser) -> None:
    add = analyse.add_argument
    add("dilations", nargs="+", type=_positive, metavar="D", help="dilation of each layer, first layer first")
    add("--kernel", type=_positive, required=True, metavar="K", help="taps of every layer")
    add("--plot", metavar="OUT.png", help="draw the path counts into this file")


def _explain(arguments: argparse.Namespace) -> None:
    import fastdil

    options = {key: value for key, value in vars(arguments).items() if key not in ("command", "x", "w")}
    try:
        explanation = fastdil.explain(arguments.x, arguments.w, **options)
    except (TypeError, ValueError) as error:
        raise CliError(str(error)) from None
    print(explanation)


def _run(argv: Sequence[str] | None) -> None:
    parser = _build_parser()
    try:
        arguments = parser.parse_args(argv)
    except SystemExit:  # argparse has printed the help or the version; its errors do not come this way
        sys.stdout.flush()
        return
    if arguments.command is None:
        parser.error("expected a command: demo, explain, design, analyse or info")
    if arguments.command == "demo":
        from fastdil.cli import demo

        demo.run(arguments)
    elif arguments.command == "explain":
        _explain(arguments)
    elif arguments.command in ("design", "analyse"):
        from fastdil.cli import schedules

        schedules.run(arguments)
    else:
        from fastdil.cli import info

        info.run()
    sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; `argv` defaults to ``sys.argv[1:]``.

    Returns
    -------
    int
        Exit code: 0 done, 2 bad argument or input file, 130 interrupted, 141 output closed early. Any other
        failure propagates, so that Python prints its traceback and exits with 1.
    """
    if argv is None:  # the process is ours
        quit_on_interrupt()
    try:
        _run(argv)
    except CliError as error:
        print(f"fastdil: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fastdil: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`fastdil demo | head -1`). Let the flush at exit succeed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    return 0
