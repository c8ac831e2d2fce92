"""The frozen parts of the tiny model, where packed models look for them."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def downloads(tiny_downloads):
    """$MOME_DOWNLOADS names their folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOME_DOWNLOADS", str(tiny_downloads))
        yield
