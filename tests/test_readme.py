"""What the documents say is true: their examples run, and their links lead somewhere."""

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/theory.md", "docs/cuda.md", "docs/amx.md")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_examples(name):
    failures, _ = doctest.testfile(str(ROOT / name), module_relative=False, encoding="utf-8")
    assert failures == 0


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_to_files(name):
    document = ROOT / name
    for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target
