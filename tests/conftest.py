"""Settings and fixtures that tests share."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# How many of its inputs a property is tried with: `make test` takes a tenth, `make test-all` all.
SHARE = float(os.environ.get("NCUTILS_FUZZ", "1"))

# The same examples on every machine and in every run; nothing is stored between runs.
settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=max(10, round(40 * SHARE)),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")

# The head of a notebook's .md source, for small ones that tests write.
NOTEBOOK_HEAD = """---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---
"""

# Chromium asks its maker's hosts for updates and the like unless told not to.
QUIET = [
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-sandbox",
]


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session):
    """Let notebooks run at full speed beside tests whose lines are counted: with this option set,
    nbval would count in its kernels too.
    """
    if hasattr(session.config, "workerinput"):
        session.config.option.cov_source = None


def build_site(checkout, output, *more):
    """Run book/build_site.py of a checkout as a user would; returns the finished process."""
    command = [sys.executable, checkout / "book" / "build_site.py", "--output", output, *more]
    return subprocess.run(command, capture_output=True, text=True)


def until(page, condition):
    """Wait until a condition in JavaScript holds. Playwright's wait_for_function evaluates text,
    which the pages' policy forbids.
    """
    page.evaluate(
        """new Promise((done, fail) => {
        const end = Date.now() + 60000;
        const fails = () => fail(new Error("never: CONDITION"));
        const look = () => (CONDITION) ? done() : Date.now() > end ? fails() : setTimeout(look, 20);
        look();
    })""".replace("(CONDITION)", f"({condition})").replace("CONDITION", condition.replace('"', "'"))
    )


@pytest.fixture
def ax():
    """An axes in the companion's theme."""
    import matplotlib

    from ncutils import figures

    with matplotlib.rc_context():
        figures.use_theme()
        _, ax = figures.panels()
        yield ax
        matplotlib.pyplot.close("all")


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the pages, built from the stored outputs. Tests that run at the same time share
    it: the first builds it while the others wait.
    """
    base = tmp_path_factory.getbasetemp()
    output = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "site"
    with FileLock(f"{output}.lock"):
        if not (output / "done").exists():
            result = build_site(ROOT, output)
            assert result.returncode == 0, result.stdout + result.stderr
            (output / "done").touch()
    return output / "_build" / "html"


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium. Of one module only: while it runs, Playwright's event loop stands in
    the way of others.
    """
    found = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if found is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=QUIET)
        yield browser
        browser.close()
