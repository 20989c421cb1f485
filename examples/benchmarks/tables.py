"""Tables of what was measured, in Markdown."""

from collections.abc import Iterable, Sequence
from typing import Any

Row = dict[str, Any]
_UNMEASURED = "not measured"


def rendered(results: dict[str, Any]) -> str:
    """All tables of some results, one after the other.

    Args:
        results: By part, as ``python -m benchmarks --out`` writes them.
    """
    parts = [_machine(results["machine"])]
    parts += [_TABLES[part](results[part]) for part in _TABLES if part in results]
    return "\n\n".join(parts)


def step_table(rows: Sequence[Row]) -> str:
    """The ratio of each way's step to that of its framework alone, a column a network.

    Args:
        rows: Of the part ``steps``.
    """
    networks = list(dict.fromkeys(row["network"] for row in rows))
    ways = list(dict.fromkeys(_way(row, rows) for row in rows))
    cells = {(_way(row, rows), row["network"]): _percent(row) for row in rows}
    bases = {row["network"]: row["base_ms"] for row in rows if row["over"] == "Lightning"}
    lines = [[way, *(cells.get((way, network), "") for network in networks)] for way in ways]
    lines.append(["*a step of Lightning alone*", *(f"{bases[n]:.0f} ms" for n in networks)])
    return table(["added to a step", *networks], lines)


def operation_table(rows: Sequence[Row]) -> str:
    """The mix alone, forward and backward.

    Args:
        rows: Of the part ``operation``.
    """
    lines = [
        [
            f"{_size(row['bytes'])}, {row['samples']} samples",
            _time(row["clones_us"]),
            _spread(row["ours"]),
            _spread(row["usual"]),
            _spread(row["usual_over_ours"]),
        ]
        for row in rows
    ]
    titles = ["hidden state", "two clones", "ours / clones", "usual form / clones", "usual / ours"]
    return table(titles, lines)


def table(titles: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown.

    Args:
        titles: Of the columns; all but the first are aligned to the right.
        lines: Of as many cells.
    """
    rule = ["---", *["--:"] * (len(titles) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [titles, rule, *lines])


def _machine(machine: Row) -> str:
    versions = ", ".join(f"{k} {machine[k]}" for k in ("python", "torch", "lightning"))
    place = machine["gpu"] or f"{machine['cores']} cores of {machine['processor']}"
    return f"On {place}, {machine['threads']} threads; {versions}."


def _way(row: Row, rows: Sequence[Row]) -> str:
    """The row's way, of which layers are numbered, since networks call them differently."""
    way, _, layer = str(row["way"]).partition(" at ")
    if not layer:
        return way
    if layer in ("input", "any of them"):
        return f"{way}, {layer}"
    layers = [r["way"] for r in rows if r["network"] == row["network"] and " at " in r["way"]]
    return f"{way}, layer {layers.index(row['way'])}"


def _percent(row: Row) -> str:
    low, mid, high = (100 * row["ratio"][k] - 100 for k in ("low", "median", "high"))
    return f"{mid:+.1f} % ({low:+.1f} to {high:+.1f})"


def _spread(spread: Row) -> str:
    return f"{spread['median']:.2f} ({spread['low']:.2f} to {spread['high']:.2f})"


def _size(size: float) -> str:
    for unit, limit in (("GB", 2**30), ("MB", 2**20), ("kB", 2**10)):
        if abs(size) >= limit:
            return f"{size / limit:.3g} {unit}"
    return f"{size:.0f} B"


def _time(micro: float) -> str:
    return f"{micro / 1000:.3g} ms" if micro >= 1000 else f"{micro:.3g} µs"


def _half(rows: Sequence[Row] | None) -> str:
    if rows is None:
        return f"bfloat16: {_UNMEASURED}"
    titles = ["network in bfloat16", "added to a step", "Lightning alone"]
    return table(titles, [[r["network"], _percent(r), f"{r['base_ms']:.0f} ms"] for r in rows])


def _compiled(rows: Sequence[Row] | None) -> str:
    if rows is None:
        return f"compiled: {_UNMEASURED}"
    titles = ["compiled network", "added to a step", "graphs", "recompiled", "breaks"]
    keys = ("graphs", "recompiled", "breaks")
    return table(titles, [[r["network"], _percent(r), *(str(r[k]) for k in keys)] for r in rows])


def _memory(rows: Sequence[Row]) -> str:
    titles = ["network", "layer", "hidden state", "added to the peak", "of", "allocations"]
    lines = [
        [
            row["network"],
            row["layer"],
            *(_size(row[k]) for k in ("hidden_bytes", "added_peak_bytes", "base_peak_bytes")),
            f"{row['base_allocations']} {row['added_allocations']:+d}",
        ]
        for row in rows
    ]
    return table(titles, lines)


def _waits(rows: Sequence[Row]) -> str:
    def cell(count: int | None) -> str:
        return _UNMEASURED if count is None else str(count)

    lines = [[r["network"], cell(r["without"]), cell(r["with"])] for r in rows]
    return table(["host waits for the GPU in a step", "without", "with"], lines)


def host_table(rows: Sequence[Row], framework: str) -> str:
    """What each way adds to a step of a network that does nothing, and over the usual form by hand.

    Args:
        rows: Of the part ``host``, under ``added``.
        framework: ``"loop"``, ``"Lightning"`` or ``"torchbearer"``, whose ways are shown.
    """
    some = [row for row in rows if row["way"].startswith(f"{framework} + ")]
    cases = list(dict.fromkeys(_case(row) for row in some))
    ways = list(dict.fromkeys(row["way"] for row in some))
    cells = {(row["way"], _case(row)): _added(row) for row in some}
    bases = {_case(row): f"{row['base_us']:.0f} µs" for row in some}
    lines = [[case, bases[case], *(cells.get((way, case), "") for way in ways)] for case in cases]
    names = [way.removeprefix(f"{framework} + ") for way in ways]
    return table([f"added in {_IN[framework]}", "a step alone", *names], lines)


_IN = {"loop": "a loop", "Lightning": "Lightning", "torchbearer": "torchbearer"}


def _case(row: Row) -> str:
    return f"{row['loss']}, {row['layers']} layer{'s' if row['layers'] > 1 else ''}"


def _added(row: Row) -> str:
    over = row["over_by_hand"]
    ratio = "" if over is None else f" ({over['median']:.2f})"
    return f"{row['added_us']:.0f} µs{ratio}"


def _host(results: dict[str, Any]) -> str:
    found = [host_table(results["added"], framework) for framework in _IN]
    if "parts" in results:
        lines = [
            [row["part"], *(f"{row[name]:.1f} µs" for name in ("without", "with"))]
            for row in results["parts"]
        ]
        found.append(table(["part of a step of Lightning", "without", "with"], lines))
    return "\n\n".join(found)


def _batches(rows: Sequence[Row]) -> str:
    lines = [[str(r["batch"]), f"{r['base_ms']:.0f} ms", _percent(r)] for r in rows]
    return table([f"batch, {rows[0]['network']}", "Lightning alone", "added to a step"], lines)


def _ranks(row: Row | None) -> str:
    if row is None:
        return f"two processes: {_UNMEASURED}"
    cells = [_percent(row), str(row["collectives_without"]), str(row["collectives_with"])]
    titles = ["processes", "added to a step", "collectives without", "with"]
    return table(titles, [[str(row["processes"]), *cells]])


_TABLES: dict[str, Any] = {
    "operation": operation_table,
    "steps": step_table,
    "bf16": _half,
    "compiled": _compiled,
    "memory": _memory,
    "waits": _waits,
    "host": _host,
    "batches": _batches,
    "ranks": _ranks,
}
