"""What `make` does about .venv, with a stand-in for Python that only takes notes of what it is
asked.
"""

import os
import shutil
import signal
import subprocess
import time

import pytest
from conftest import ROOT

# Answers for version $version; `pip install` fails if there is a file `broken` and hangs if there
# is one `slow`.
STAND_IN = """#!/bin/sh
version={version}
case "$*" in
  *'%d.%d.%d'*) echo $version ;;
  *'sys.exit(sys.version_info'*) case $version in 3.[0-9].*|3.10.*) exit 1 ;; esac ;;
  '-m venv --clear .venv') echo "create $version" >> log
    rm -rf .venv; mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
  '-m pip install'*) echo "install $version" >> log
    if [ -e slow ]; then sleep 60; fi
    if [ -e broken ]; then echo 'no such package' >&2; exit 1; fi ;;
  *) echo "$*" >> log ;;
esac
"""
FIRST = ["create 3.11.7", "install 3.11.7"]
BUILD = "book/build_site.py"


def interpreter(path, version):
    path.write_text(STAND_IN.format(version=version))
    path.chmod(0o755)
    return path


@pytest.fixture
def checkout(tmp_path):
    """A copy with a space in its path, beside a `python3` of version 3.11.7 and a `python3.12`."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    (tmp_path / "bin").mkdir()
    interpreter(tmp_path / "bin" / "python3", "3.11.7")
    interpreter(tmp_path / "bin" / "python3.12", "3.12.1")
    return folder


def environment(folder):
    """Ours, without what an outer `make` has put into it, with the stand-ins first on the path."""
    outer = "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHON"
    kept = {key: value for key, value in os.environ.items() if key not in outer}
    return kept | {"PATH": f"{folder.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def make(folder, *arguments):
    setting = dict(cwd=folder, env=environment(folder), capture_output=True, text=True)
    return subprocess.run(["make", *arguments], **setting)


def log(folder):
    return (folder / "log").read_text().splitlines()


def test_without_a_target_the_targets_are_listed(checkout):
    shown = make(checkout).stdout
    for target in ("book", "site", "lint", "test", "test-all", "notebooks", "bench", "clean"):
        assert f"make {target} " in shown
    assert not (checkout / ".venv").exists()


def test_packages_are_installed_once(checkout):
    assert make(checkout, "site").returncode == 0
    assert make(checkout, "site").returncode == 0
    assert log(checkout) == FIRST + [BUILD, BUILD]


def test_an_old_python_is_refused(checkout):
    interpreter(checkout.parent / "bin" / "python3", "3.10.13")
    result = make(checkout, "site")
    assert result.returncode != 0
    for said in ("Python 3.11 or later is needed; python3 is 3.10.13", "PYTHON="):
        assert said in result.stderr
    assert not (checkout / ".venv").exists() and not (checkout / "log").exists()


def test_a_python_that_does_not_run_is_named(checkout):
    result = make(checkout, "site", "PYTHON=python9")
    assert result.returncode != 0 and "PYTHON=python9 does not run" in result.stderr


def test_a_failed_installation_is_an_error_and_is_repeated(checkout):
    (checkout / "broken").touch()
    for _ in range(2):
        result = make(checkout, "site")
        assert result.returncode != 0 and "no such package" in result.stderr
    (checkout / "broken").unlink()
    assert make(checkout, "site").returncode == 0
    assert log(checkout) == FIRST * 3 + [BUILD]


def test_a_killed_installation_is_repeated(checkout):
    (checkout / "slow").touch()
    setting = dict(cwd=checkout, env=environment(checkout), start_new_session=True)
    started = subprocess.Popen(["make", "site"], **setting)
    deadline = time.monotonic() + 30
    while not (checkout / "log").exists() or log(checkout) != FIRST:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    (checkout / "slow").unlink()
    assert make(checkout, "site").returncode == 0
    assert log(checkout) == FIRST * 2 + [BUILD]


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_requirement_is_installed(checkout, name):
    make(checkout, "site")
    with open(checkout / name, "a") as file:
        file.write("# changed\n")
    make(checkout, "site")
    # into the same .venv: that takes seconds
    assert log(checkout) == FIRST + [BUILD, "install 3.11.7", BUILD]


def test_an_interrupted_change_is_made_from_the_start(checkout):
    make(checkout, "site")
    (checkout / "constraints.txt").write_text("")
    (checkout / "broken").touch()
    assert make(checkout, "site").returncode != 0
    (checkout / "broken").unlink()
    make(checkout, "site")
    assert log(checkout) == FIRST + [BUILD, "install 3.11.7"] + FIRST + [BUILD]


def test_a_chosen_python_replaces_another_and_then_stays(checkout):
    make(checkout, "site")
    make(checkout, "site", "PYTHON=python3.12")
    make(checkout, "site", "PYTHON=python3.12")
    make(checkout, "site")
    assert log(checkout) == FIRST + [BUILD, "create 3.12.1", "install 3.12.1", BUILD, BUILD, BUILD]


def test_a_python_that_is_gone_is_replaced(checkout):
    make(checkout, "site")
    (checkout / ".venv" / "bin" / "python").unlink()
    assert make(checkout, "site").returncode == 0
    assert log(checkout) == (FIRST + [BUILD]) * 2


def test_a_copied_checkout_gets_its_own_packages(checkout):
    make(checkout, "site")
    copy = shutil.copytree(checkout, checkout.parent / "a copy")
    make(copy, "site")
    assert log(copy) == (FIRST + [BUILD]) * 2


def test_a_failing_notebook_stops_the_book(checkout):
    make(checkout, "site")
    python = checkout / ".venv" / "bin" / "python"
    case = 'case "$*" in\n'
    python.write_text(python.read_text().replace(case, f"{case}  notebooks/run.py) exit 1 ;;\n"))
    assert make(checkout, "book").returncode != 0
    assert log(checkout) == FIRST + [BUILD]


BEGIN, RUN, COMPARE = (f"notebooks/{name}.py" for name in ("new_claim", "run", "reproduce"))
SITE = f"{BUILD} --notebooks _build/notebooks --only 08_a"


@pytest.mark.parametrize(
    "targets, asked",
    [
        ("claim NAME=08_a", [f"{BEGIN} 08_a"]),
        ("claim NAME=08_a FROM=03_threshold", [f"{BEGIN} 08_a --from 03_threshold"]),
        ("claim", [f"{BEGIN} "]),  # the script says what NAME must be
        ("reproduce", [COMPARE]),
        ("reproduce ONLY=03_threshold", [f"{COMPARE} 03_threshold"]),
        ("book ONLY=08_a", [f"{RUN} 08_a", SITE]),
    ],
)
def test_one_notebook_is_begun_run_or_compared(checkout, targets, asked):
    assert make(checkout, *targets.split()).returncode == 0
    assert log(checkout) == FIRST + asked


ONE = "Found 1 known vulnerability in 1 package\nsome 1.0 CVE-1"
NO_ANSWER = (
    "Not audited: the service that knows of vulnerabilities did not answer for every package.\n"
    "The last line of _build/audit/report: ConnectionError: nobody there\n"
)


@pytest.mark.parametrize(
    "status, said, shown",
    [
        (0, "No known vulnerabilities found", "No known vulnerabilities found\n"),
        (1, ONE, f"{ONE}\n"),
        (1, "Traceback\nConnectionError: nobody there", NO_ANSWER),
    ],
)
def test_an_audit_that_did_not_happen_is_no_good_news(checkout, status, said, shown):
    assert make(checkout, "venv").returncode == 0
    commands = checkout / "_build" / "audit" / "bin"
    commands.mkdir(parents=True)
    interpreter(commands / "python", "3.11.7")
    notes = "#!/bin/sh\necho \"$*\" >> log\necho 'WARNING: hashes'\n"
    (commands / "pip-audit").write_text(f"{notes}printf '{said}\\n'\nexit {status}\n")
    (commands / "pip-audit").chmod(0o755)
    result = make(checkout, "audit")
    assert (result.returncode == 0) == (status == 0) and result.stdout == shown
    assert log(checkout)[2:] == [
        "-m venv --clear _build/audit",
        "install 3.11.7",
        "--strict --no-deps --disable-pip --progress-spinner off -r constraints.txt",
    ]
