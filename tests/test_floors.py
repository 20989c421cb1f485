import ast
import importlib
import pkgutil
from pathlib import Path

import lightning_mmix

PACKAGE = Path(lightning_mmix.__file__).parent
# from the ground up: a module imports from those before it
FLOORS = [
    [
        "plan",
        "fused",
        "kernels",
        "mixing",
        "layers",
        "batch",
        "scores",
        "calibration",
        "differences",
    ],
    [
        "functions",
        "step",
        "pairs",
        "sides",
        "refusals",
        "shared",
        "paired",
        "targets",
        "tracing",
        "gates",
    ],
    ["snapshot", "signal", "sites", "recording", "probe", "cuts", "calls", "predictions"],
    ["condition", "attacks", "distortions", "conditions", "look", "curves", "planes", "plots"],
    [
        "verification",
        "summed",
        "metrics",
        "spectrum",
        "tally",
        "hidden",
        "boundaries",
        "robustness",
        "tables",
        "score_tables",
    ],
    ["choice", "callback", "module", "monitor", "visits", "measurement", "runs", "comparison"],
    ["findings", "pictures", "report", "compare", "cli"],
]
ORDER = [name for floor in FLOORS for name in floor]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_module_stands_on_a_floor():
    assert sorted(ORDER) == sorted(p.stem for p in PACKAGE.glob("*.py") if p.stem != "__init__")


def test_imports_point_down():
    for position, name in enumerate(ORDER):
        ours = [m for m in imports(PACKAGE / f"{name}.py") if m.startswith("lightning_mmix")]
        assert {m.removeprefix("lightning_mmix.") for m in ours} <= set(ORDER[:position]), name


def test_lightning_is_imported_on_the_upper_floors_only():
    for name in [name for floor in FLOORS[:5] for name in floor]:
        roots = {m.split(".")[0] for m in imports(PACKAGE / f"{name}.py")}
        assert "lightning" not in roots, name


def test_all_is_what_is_public():
    modules = {info.name for info in pkgutil.iter_modules([str(PACKAGE)])}
    public = {name for name in vars(lightning_mmix) if not name.startswith("_")} - modules
    # the module lightning_mmix.mixing gives way to the context manager of that name
    assert public | {"mixing"} == set(lightning_mmix.__all__)
    assert lightning_mmix.__all__ == sorted(lightning_mmix.__all__)
    for name in modules:
        importlib.import_module(f"lightning_mmix.{name}")


def test_a_file_has_at_most_250_lines():
    for path in PACKAGE.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 250, path.name
