"""The reference of the public names: it builds without a warning, and each name has an example."""

import ast
import importlib
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import FunctionType, GenericAlias

import pytest

ROOT = Path(__file__).parents[1]
COMMAND = (
    "python -m pdoc -d google -o build/api lightning_mmix lightning_mmix/*/__init__.py '!.*check'"
)
FACES = [
    ".".join(path.relative_to(ROOT).parent.parts)
    for path in sorted([*ROOT.glob("lightning_mmix/__init__.py"), *ROOT.glob("*/*/__init__.py")])
    if path.is_relative_to(ROOT / "lightning_mmix")
]


def shown(face):
    """The public names of a face, with what they are."""
    module = importlib.import_module(face)
    return {name: getattr(module, name) for name in module.__all__}


def holds_docstring(value):
    """Whether it is a class or a function, and no alias of a type: before 3.11 that is a class."""
    return isinstance(value, type | FunctionType) and not isinstance(value, GenericAlias)


def described(face):
    """The names of a face that a text stands below."""
    body = ast.parse((ROOT.joinpath(*face.split(".")) / "__init__.py").read_text()).body
    return {
        before.targets[0].id
        for before, after in pairwise(body)
        if isinstance(before, ast.Assign) and isinstance(after, ast.Expr)
    }


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """What the command says, and the pages that it writes."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "lightning_mmix").symlink_to(ROOT / "lightning_mmix")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["sh", "-c", COMMAND], cwd=folder, env={**os.environ, "PATH": path},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    api = folder / "build" / "api"
    names = {page.relative_to(api).with_suffix(""): page for page in api.rglob("*.html")}
    return done.stderr, {".".join(name.parts): page.read_text() for name, page in names.items()}


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a shell puts the packages in the place of the star")
def test_the_reference_builds_without_a_warning_and_has_a_page_for_each_face(reference):
    warnings, pages = reference
    assert warnings == ""
    assert set(pages) == {"index", *FACES}


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a shell puts the packages in the place of the star")
@pytest.mark.parametrize("face", FACES)
def test_a_page_tells_of_each_public_name(face, reference):
    page = reference[1][face]
    assert re.findall(r'<section id="(\w+)">', page) == list(shown(face))
    for name in shown(face):
        section = page.split(f'<section id="{name}">')[1].split("<section ")[0]
        assert '<div class="docstring">' in section, name


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a shell puts the packages in the place of the star")
def test_the_first_page_leads_to_all_others(reference):
    first = reference[1]["lightning_mmix"]
    assert [
        face for face in FACES[1:] if f'href="{face.replace(".", "/")}.html"' not in first
    ] == []


def test_pages_give_the_command_that_is_tested():
    for page in [ROOT / "README.md", *(ROOT / "examples").rglob("*.md")]:
        given = re.findall(r"^.*\bpython -m pdoc\b.*$", page.read_text(), re.MULTILINE)
        assert {line.strip() for line in given} <= {COMMAND}, page


@pytest.mark.parametrize("face", FACES)
def test_each_public_class_and_function_has_an_example(face):
    documented = {name: each.__doc__ for name, each in shown(face).items() if holds_docstring(each)}
    assert [name for name, text in documented.items() if ">>> " not in (text or "")] == []


@pytest.mark.parametrize("face", FACES)
def test_each_public_constant_and_alias_has_a_sentence(face):
    others = {name for name, each in shown(face).items() if not holds_docstring(each)}
    assert others == described(face)
