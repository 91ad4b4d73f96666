"""What the commands share: their one kind of error, Ctrl-C, a progress line, readable numbers."""

from __future__ import annotations

import os
import shutil
import signal
import sys

#: Exit codes of processes that a signal ended: 128 and the signal's number.
INTERRUPTED = 130
PIPE_CLOSED = 141


class CliError(Exception):
    """A bad argument or input file; its text becomes the one line that the user sees."""


def quit_on_interrupt() -> None:
    """Let Ctrl-C end the process at once, with one line.

    As an exception it may surface inside Numba's compiler, which then loses it or fails with another one (both seen).
    """

    def quit_now(*_: object) -> None:
        erase = b"\r\x1b[K" if sys.stderr.isatty() else b""
        os.write(sys.stderr.fileno(), erase + b"fastdil: interrupted\n")
        os._exit(INTERRUPTED)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where a shell has it ignored
        signal.signal(signal.SIGINT, quit_now)


def width() -> int | None:
    """Columns of the terminal that reads the output, or None where a file or a program does."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


class Progress:
    """One line on stderr, rewritten in place; silent unless stderr is a terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self.clear()

    def show(self, text: str) -> None:
        """Replace the line by `text`."""
        if self._shown:
            print(f"\r\x1b[K{text[:78]}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Erase the line, before something else is printed."""
        self.show("")


def seconds(value: float) -> str:
    """A duration with three digits and a readable unit.

    >>> seconds(0.00123), seconds(2.5), seconds(42e-6)
    ('1.23 ms', '2.5 s', '42 us')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} us"


def kibibytes(value: int) -> str:
    """A size in memory, in the largest unit that keeps it whole or above 10.

    >>> kibibytes(32768), kibibytes(2 * 2**20), kibibytes(500)
    ('32 KiB', '2 MiB', '500 B')
    """
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= 10 * size or (value >= size and value % size == 0):
            return f"{value / size:.4g} {unit}"
    return f"{value} B"
