"""One wording for every refusal: the parameter, its value, and what was expected."""

from __future__ import annotations

_SHOWN = 120


def _expectation(name: str, value: object, expected: str) -> str:
    text = repr(value)
    if len(text) > _SHOWN:
        text = text[: _SHOWN - 3] + "..."
    return f"{name}={text}: expected {expected}"


def bad_value(name: str, value: object, expected: str) -> ValueError:
    """A ``ValueError`` that names the parameter, its value and what was expected.

    >>> bad_value("stride", 0, "an integer >= 1")
    ValueError('stride=0: expected an integer >= 1')
    """
    return ValueError(_expectation(name, value, expected))


class UntameInputError(ValueError):
    """A transform met data that it would smear over outputs which do not touch them; nothing has been written."""


def bad_type(name: str, value: object, expected: str) -> TypeError:
    """A ``TypeError`` in the same words as `bad_value`."""
    return TypeError(_expectation(name, value, expected))
