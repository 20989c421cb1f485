"""What a release is: a wheel, a source archive, a citation, and where all of it is tried."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import lightning_mmix

tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSION = PROJECT["version"]
PYTHONS = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))


def run(*command, folder=ROOT, **environment):
    """Run Python with these arguments; give what it says, or hand on how it failed."""
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=folder, env={**os.environ, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A folder with the wheel and the source archive, which is unpacked there, too."""
    folder = tmp_path_factory.mktemp("release")
    said = run("-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    assert "warning" not in said.lower()
    with tarfile.open(archive(folder)) as opened:
        opened.extractall(folder, filter="data")
    return folder


def archive(release):
    return release / f"lightning_mmix-{VERSION}.tar.gz"


def wheel(release):
    return release / f"lightning_mmix-{VERSION}-py3-none-any.whl"


def source(release):
    return release / f"lightning_mmix-{VERSION}"


def installed(path, folder):
    """The files of what is installed from a wheel or an archive alone, into a folder."""
    alone = ("--isolated", "--no-index", "--no-deps", "--no-build-isolation", "--no-compile")
    run("-m", "pip", "install", "--quiet", *alone, "--target", folder, path)
    return {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}


@pytest.mark.slow
def test_the_wheel_holds_the_package_its_types_and_no_tests(release):
    names = zipfile.ZipFile(wheel(release)).namelist()
    info = f"lightning_mmix-{VERSION}.dist-info"
    assert {"lightning_mmix/py.typed", f"{info}/licenses/LICENSE"} <= set(names)
    assert {name.split("/")[0] for name in names} == {"lightning_mmix", info}


@pytest.mark.slow
def test_the_source_archive_holds_all_that_is_kept(release):
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)  # noqa: PLW1510
    if listed.returncode != 0:
        pytest.skip("not in a repository")
    missing = [name for name in listed.stdout.split() if not (source(release) / name).exists()]
    assert missing == []


@pytest.mark.slow
def test_what_is_installed_runs_the_first_command_from_another_folder(release, tmp_path):
    of_wheel, of_archive, empty = (tmp_path / name for name in ("wheel", "archive", "empty"))
    assert installed(wheel(release), of_wheel) == installed(archive(release), of_archive)
    empty.mkdir()
    first = {"PYTHONPATH": str(of_wheel), "PYTHONDONTWRITEBYTECODE": ""}
    options = ("--fast", "--trainer.max_epochs=2", "--out", tmp_path / "out")
    run(source(release) / "examples" / "series.py", *options, folder=empty, **first)
    assert f"- report: lightning_mmix {VERSION}\n" in (tmp_path / "out" / "report.md").read_text()
    # its bytecode shows that it ran, in the processes of the runs, too
    assert list(of_wheel.glob("lightning_mmix/compare/runs/__pycache__/run.*"))
    assert list(empty.iterdir()) == []
    asked = run("-c", "import lightning_mmix as m; print(m.__version__)", folder=empty, **first)
    assert asked == f"{VERSION}\n"


def test_the_version_is_asked_for_when_it_is_needed():
    code = "import sys, lightning_mmix as m; m.__version__; print('torch' in sys.modules)"
    assert run("-c", code) == "False\n"
    assert "__version__" not in lightning_mmix.__all__


def test_a_citation_a_release_and_the_changes_are_of_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert (citation["version"], citation["license"]) == (VERSION, PROJECT["license"])
    assert citation["authors"][0]["name"] in (ROOT / "LICENSE").read_text()
    newest = re.search(r"^## \[(\d[\d.]*)\] - (.*)$", changes, re.MULTILINE)
    assert newest is not None, "no version has a heading in CHANGELOG.md"
    assert newest.groups() == (VERSION, str(citation["date-released"]))


def test_all_that_is_promised_is_tried():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    matrix = jobs["newest"]["strategy"]["matrix"]
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    assert matrix["python"] == PYTHONS
    assert {more["python"] for more in matrix["include"]} == {PYTHONS[-1]}
    assert jobs["oldest"]["steps"][1]["with"]["python-version"] == PYTHONS[0]
    assert {job["steps"][-1]["run"] for job in jobs.values()} == {"bash .ci/run"}
