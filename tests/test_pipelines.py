"""The documents about pipelines and about arrays larger than memory run as they stand."""

import doctest
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.mark.parametrize(
    ("name", "needs"), [("pipelines.md", ("dask",)), ("larger_than_memory.md", ("dask", "xarray"))]
)
def test_document(name, needs):
    for package in needs:
        pytest.importorskip(package, reason=f"{name} shows {package}, an optional extra")
    failures, tried = doctest.testfile(str(DOCS / name), module_relative=False, encoding="utf-8")
    assert tried > 10
    assert failures == 0
