"""Shared fixtures: where real corpora lie, and an engine for small pipelines."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture
def manuals() -> Path:
    """A WARC file of real pages and their real pictures; skipped where it is not at hand."""
    path = SHARED / "corpora" / "manuals.warc.gz"
    if not path.exists():
        pytest.skip("the corpus of real pages is not at hand")
    return path
