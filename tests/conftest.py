"""Settings and fixtures of the whole suite: hypothesis profiles, array kinds, and the guard of global state."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from rankdiag.testing import BACKENDS, Backend, no_global_change

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test never waits for the network

settings.register_profile("dev", max_examples=50, deadline=None, derandomize=True, database=None)
settings.register_profile("ci", max_examples=200, deadline=None, derandomize=True, database=None)
settings.register_profile(
    "nightly", max_examples=5000, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("RANKDIAG_HYPOTHESIS_PROFILE", "dev"))


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole suite in two processes, unless files, processes, a debugger or coverage are asked for."""
    chosen = config.option
    worker = "PYTEST_XDIST_WORKER" in os.environ  # one of the two processes, or a run that a test starts
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS and config.pluginmanager.hasplugin("xdist")
    alone = chosen.collectonly or chosen.usepdb or getattr(chosen, "cov_source", None)
    # Coverage has begun by now, and must know of processes before: it needs -n2.
    if whole and not worker and not alone and chosen.numprocesses is None:
        chosen.numprocesses = min(2, os.cpu_count() or 1)
        chosen.dist = "worksteal"  # neighbours stay together, so that few fixtures are made twice
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # a core for each process
    if worker or not getattr(chosen, "numprocesses", None):  # where tests run, and not where processes are started
        os.environ.pop("PYTEST_ADDOPTS", None)  # options of this run are not meant for the runs that tests start


@pytest.fixture(autouse=True)
def _global_state_is_kept(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail every test that leaves global state changed; `changes_global_state` names what a test may change."""
    marker = request.node.get_closest_marker("changes_global_state")
    with no_global_change(ignore=marker.args if marker else ()):
        yield


@pytest.fixture(params=BACKENDS, ids=lambda backend: backend.name)
def xp(request: pytest.FixtureRequest) -> Backend:
    """Run a numeric test on every kind of array; see `rankdiag.testing.Backend` for how to make and compare them."""
    backend: Backend = request.param
    return backend
