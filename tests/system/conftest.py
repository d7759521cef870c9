"""Fixtures of the system tests. Helpers are in covey.py."""
import os
import sys
import zlib

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import covey  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "sanitizer: also run on the AddressSanitizer and ThreadSanitizer builds")


def pytest_collection_modifyitems(config, items):
    """On the sanitizer builds a run of seconds takes minutes: each of the two has two fifths of the marked tests, chosen
    by a seed that the test run prints; a long run has them all."""
    seed = os.environ.get("COVEY_SHARE_SEED")
    if not covey.SANITIZED or covey.LONG or not seed:
        return
    mine = (2, 3) if "thread" in covey.COVEY_BIN else (0, 1)
    left_out = [item for item in items if zlib.crc32((seed + item.nodeid).encode()) % 5 not in mine]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_report_header(config):
    return f"covey binary: {covey.COVEY_BIN}; redis-server: {covey.REDIS_BIN}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the end of every server's log."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for name in item.fixturenames:
            servers = item.funcargs.get(name)
            if isinstance(servers, covey.Servers):
                report.sections.append((f"server logs ({name})", servers.logs()))


def _servers():
    servers = covey.Servers()
    yield servers
    complaints, logs = servers.close()
    if complaints:
        pytest.fail("\n".join(complaints) + "\n" + logs, pytrace=False)


servers = pytest.fixture(_servers)
module_servers = pytest.fixture(_servers, scope="module")


@pytest.fixture(params=["covey", "redis"])
def kind(request):
    """For what has to hold for the helpers themselves: both kinds of server."""
    return request.param


@pytest.fixture
def node(servers):
    """One standalone server under test."""
    return servers.node("covey")
