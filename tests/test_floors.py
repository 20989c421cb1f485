"""The house: packages in one order, each library where it belongs, and rooms of a sane size."""

import ast
import importlib
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import lightning_mmix

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lightning_mmix"

# what each may import of ours; plots takes values in, and whoever has some may ask for a picture
BELOW = {
    "faces": set(),
    "problems": set(),
    "core": {"problems"},
    "plots": set(),
    "batches": {"core"},
    "watch": {"core", "problems"},
    "pairing": {"core", "batches", "watch"},
    "cuts": {"core", "batches", "pairing"},
    "metrics": {"core", "pairing", "plots"},
    "proof": {"core", "batches", "watch", "pairing", "cuts"},
    "engine": {"core", "batches", "watch", "pairing", "cuts", "proof"},
    "evaluation": {"core", "batches", "pairing", "cuts", "metrics", "engine", "plots"},
    "training": {
        *("core", "plots", "batches", "watch", "pairing", "cuts", "metrics", "evaluation"),
        *("proof", "engine"),
    },
    "compare": {
        *("core", "plots", "batches", "pairing", "cuts", "metrics", "evaluation", "engine"),
        *("training", "faces", "problems"),
    },
    "cli": {"batches", "cuts", "proof", "engine", "training", "compare", "problems"},
}
WHERE = {
    "lightning": {"training", "compare", "cli"},
    "pytorch_lightning": set(),
    "lightning_fabric": set(),
    "rich": {"cuts", "evaluation", "proof", "compare", "cli"},
    "matplotlib": {"plots", "compare"},
    "scipy": {"compare"},
    "torchvision": {"evaluation"},
    "triton": {"core"},
}
MODULES_ALONE = {"faces", "problems"}
PYTHON = r"^```python\n(.*?)^```"  # a block of a page
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def package_of(name):
    return (*name.split("."), "lightning_mmix")[1]


def imports(path):
    """What a module imports, wherever in its code, with the line."""
    return imports_in(path.read_text())


def imports_in(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or ""), node.lineno
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)


def offending(is_wrong):
    """The imports that are wrong, as one would look them up."""
    return [
        f"{path.relative_to(PACKAGE.parent)}:{line} imports {imported}"
        for path in MODULES
        for imported, line in imports(path)
        if is_wrong(package_of(name_of(path)), imported)
    ]


def test_every_package_has_its_place():
    below_the_top = {package_of(name_of(path)) for path in MODULES} - {"lightning_mmix"}
    assert below_the_top == set(BELOW)
    TopologicalSorter(BELOW).prepare()  # raises where they go round in a circle


def test_packages_import_from_those_before_them():
    def is_wrong(package, imported):
        if not imported.startswith("lightning_mmix.") or package == "lightning_mmix":
            return False
        return package_of(imported) not in BELOW[package] | {package}

    assert offending(is_wrong) == []


def test_modules_import_from_modules():
    modules = {name_of(path) for path in MODULES if path.name != "__init__.py"}

    def is_wrong(package, imported):
        is_ours = imported.split(".")[0] in ("lightning_mmix", "")
        return is_ours and imported not in modules and package in BELOW

    inside = [each for each in offending(is_wrong) if "__init__.py" not in each]
    assert inside == []  # a face, or the top, would hide what is imported


@pytest.mark.parametrize("library", WHERE)
def test_a_library_is_imported_where_it_belongs(library):
    def is_wrong(package, imported):
        return imported.split(".")[0] == library and package not in WHERE[library]

    assert offending(is_wrong) == []


def test_modules_import_one_way():
    names = {name_of(path) for path in MODULES}
    graph = {
        name_of(path): {imported for imported, _ in imports(path) if imported in names}
        for path in MODULES
        if path.name != "__init__.py"
    }
    TopologicalSorter(graph).prepare()  # raises with the circle, if there is one


@pytest.mark.parametrize("package", ["", *(name for name in BELOW if name not in MODULES_ALONE)])
def test_a_face_shows_what_is_public(package):
    face = importlib.import_module(f"lightning_mmix.{package}".rstrip("."))
    modules = {path.stem for path in (PACKAGE / package).iterdir()}
    for name in face.__all__:
        getattr(face, name)  # some are imported when they are asked for
    lazily = {"TYPE_CHECKING", "face"}
    public = {name for name in vars(face) if not name.startswith("_")} - modules - lazily
    # a package or module of the same name gives way
    assert public | (set(face.__all__) & modules) == set(face.__all__)
    assert len(face.__all__) == len(set(face.__all__))
    assert all(callable(getattr(face, name)) or name.isupper() for name in face.__all__)


def test_users_import_from_faces():
    sources = {
        f"{page.name}, block {i}": block
        for page in [ROOT / "README.md", *(ROOT / "examples" / "guides").glob("*.md")]
        for i, block in enumerate(re.findall(PYTHON, page.read_text(), re.MULTILINE | re.DOTALL))
    }
    assert {"README.md, block 0", "recipes.md, block 0"} <= sources.keys()
    sources |= {str(path): path.read_text() for path in (ROOT / "examples").rglob("*.py")}
    deep = [
        f"{where} imports {imported}"
        for where, code in sources.items()
        for imported, _ in imports_in(code)
        if imported.startswith("lightning_mmix.") and imported.count(".") > 1
    ]
    assert len(sources) > 20
    assert deep == []


def test_text_files_name_their_encoding():
    trees = [ast.parse(path.read_text()) for path in MODULES]
    calls = [ast.unparse(n) for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Call)]
    opened = [call for call in calls if re.match(r".*\b(read_text|write_text|open|fdopen)\(", call)]
    of_text = [call for call in opened if "'wb'" not in call and not call.startswith("os.open(")]
    assert len(of_text) > 10
    # Windows has another one than UTF-8 for its own
    assert [call for call in of_text if "encoding='utf-8'" not in call] == []


def test_a_package_has_about_ten_modules_at_most():
    assert len([path for path in PACKAGE.iterdir() if path.name[0] not in "._"]) <= 17
    for package in BELOW:
        assert len(list((PACKAGE / package).glob("[!_]*.py"))) <= 10, package


def test_a_module_has_at_most_250_lines():
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in MODULES}
    assert [f"{name}: {length} lines" for name, length in lengths.items() if length > 250] == []


def test_the_page_of_the_packages_names_what_is_there():
    page = (ROOT / "examples" / "guides" / "inside.md").read_text()
    named = set(re.findall(r"`(\w+/\w+\.py)`", page))
    assert len(named) > 25
    for name in named:
        assert any((folder / name).exists() for folder in (PACKAGE, ROOT)), name
    drawn = page.split("```")[1]
    assert set(re.findall(r"(?:^|\|) +(\w+)  ", drawn, re.MULTILINE)) == set(BELOW)


def test_what_a_guide_lists_of_a_package_can_be_imported_from_there():
    page = (ROOT / "examples" / "guides" / "metrics.md").read_text()
    rows = page.split("| from | import |")[1].split("\n\n")[0]
    package = None
    for row in rows.splitlines()[2:]:
        _, left, right, _ = row.split("|")
        package = left.strip().strip("`") or package
        names = re.findall(r"`(\w+)[`(]", right)
        missing = [n for n in names if not hasattr(importlib.import_module(package), n)]
        assert missing == [], package


def test_commands_begin_without_torch():
    code = (
        "import sys, lightning_mmix.cli, lightning_mmix.compare.command as _;"
        "print({'torch', 'lightning', 'scipy', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_face_tells_of_a_misspelt_name_and_has_its_packages():
    with pytest.raises(AttributeError, match="'Mixxer'; did you mean 'Mixer'"):
        getattr(lightning_mmix, "Mixxer")  # noqa: B009 - types know that it isn't there
    assert set(lightning_mmix.__all__) == set(dir(lightning_mmix))
    code = "import lightning_mmix; print(lightning_mmix.metrics.BrierScore.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "BrierScore\n"
