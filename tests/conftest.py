"""Shared fixtures: where real corpora lie, and an engine for small pipelines."""

from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes tells of the machine, and of what else runs on it.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture
def manuals() -> Path:
    """A WARC file of real pages and their real pictures; skipped where it is not at hand."""
    path = SHARED / "corpora" / "manuals.warc.gz"
    if not path.exists():
        pytest.skip("the corpus of real pages is not at hand")
    return path
