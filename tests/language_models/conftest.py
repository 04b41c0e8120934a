"""Models shared by the tests of the language-model engine."""

from __future__ import annotations

import pytest

from oracles.causal_zoo import Zoo, quiet


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """Tiny causal models by family; each is built on first use and written to a folder of this session."""
    quiet()
    return Zoo(tmp_path_factory.mktemp("zoo"))
