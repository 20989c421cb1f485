"""Tables of scores: values in, a rich Table out, or lines of Markdown."""

from collections.abc import Iterator, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lightning_mmix.compare.differences import (
    digits_for,
    mean_and_deviation,
    number,
    paired_difference,
    places_for,
)
from lightning_mmix.compare.findings import LOGGED_KIND, why_unmeasured
from lightning_mmix.compare.runs.scores import Score, clean_scores, table, tempered_scores
from lightning_mmix.compare.runs.task import Results, Run

Scores = Mapping[str, Mapping[str, Sequence[float]]]  # way to train → score → a value a run

_WIDTH = 80  # of a terminal
_GAP = 2  # between columns
_MOST_COLUMNS = 4  # that it has room for


def score_tables(results: Results) -> list[Table]:
    """The scores as trained, at the temperature, and under conditions, as far as there are any.

    Of modules that are no classifiers, what they log.
    """
    seeds = len(next(iter(results.values())))
    kinds: list[tuple[str, Score]] = [
        (f"Test scores, mean ± std over {seeds} seeds", clean_scores),
        ("The same at the temperature T, fitted on validation data", tempered_scores),
        ("Accuracy %, the weakest noise and attacks", noise_scores),
    ]
    if why_unmeasured(results):
        kinds = [(f"What the module logs, mean ± std over {seeds} seeds", LOGGED_KIND.score)]
    found = [(title, part) for title, score in kinds for part in _parts(table(results, score))]
    return [score_table(s, title, explains=i == 0) for i, (title, s) in enumerate(found)]


def noise_scores(run: Run) -> dict[str, float]:
    """Accuracy in percent under noise and under FGSM, of the two weakest strengths each.

    Example:
        >>> rows = [{"family": "FGSM", "strength": eps, "accuracy": 0.75} for eps in (0.01, 0.1)]
        >>> noise_scores({"conditions": rows})
        {'FGSM 0.01': 75.0, 'FGSM 0.1': 75.0}
    """
    found = {}
    for family, name in (("Gaussian noise", "noise"), ("FGSM", "FGSM")):
        rows = [row for row in run["conditions"] if row["family"] == family]
        for row in sorted(rows, key=lambda row: float(row["strength"]))[:2]:
            found[f"{name} {row['strength']:.2g}"] = 100 * float(row["accuracy"])
    return found


def score_table(scores: Scores, title: str = "", *, explains: bool = True) -> Table:
    """Scores of several ways to train, and what each differs by from the first.

    Args:
        scores: Way to train → score → its value in each of two or more runs. The runs of all ways
            come in the same order of seeds, so that differences are those between equal seeds.
        title: Stands above the table.
        explains: Whether a line below says what Δ is.

    Returns:
        A row a way: mean ± standard deviation over runs; and a row a difference: its mean ± half
        of its 95 % confidence interval. A column a score.

    Example:
        >>> scores = {"no mixing": {"NLL": [0.5, 0.7]}, "mixup": {"NLL": [0.25, 0.25]}}
        >>> list(score_table(scores).columns[1].cells)  # the last is a difference
        ['0.600 ± 0.141', '0.250 ± 0.000', '-0.350 ± 1.271']
    """
    base, *others = scores
    caption = f"Δ: minus {base}, ± half of its 95 % interval" if explains else ""
    shown = Table(
        title=title,
        caption=caption or None,
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        min_width=max(len(title), len(caption)),  # each on one line, where there is room for it
    )
    columns = {name: _column(scores, name) for name in scores[base]}
    labels = [*scores, *(f"Δ {arm}" for arm in others)]
    # what does not fit wraps between words, labels first: a number that is cut is another number
    room = _WIDTH - sum(_GAP + max(map(len, (name, *cells))) for name, cells in columns.items())
    least = _longest_word(labels)
    shown.add_column("", min_width=least, max_width=max(room, least))
    for name, cells in columns.items():
        shown.add_column(name, justify="right", min_width=_longest_word(cells), overflow="fold")
    for i, row in enumerate(zip(labels, *columns.values(), strict=True)):
        shown.add_row(*row, end_section=i == len(others))
    return shown


def markdown_table(scores: Scores) -> list[str]:
    """The same in Markdown: a row a score, and a column a way and a difference, bold if clear."""
    base, *others = scores
    header = ["", *scores, *(f"Δ {arm}" for arm in others)]
    columns = {name: _column(scores, name, "**") for name in scores[base]}
    rows = [
        [name, *(cell.replace(" ", "\xa0") for cell in cells)] for name, cells in columns.items()
    ]
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def spread(values: Sequence[float], digits: int) -> str:
    """The mean of values ± their standard deviation, if there are several.

    Example:
        >>> spread([0.91, 0.93, 0.92], 2)
        '0.92 ± 0.01'
    """
    mean, deviation = mean_and_deviation(values)
    return number(mean, digits) + f" ± {deviation:.{digits}f}" * (len(values) > 1)


def _column(scores: Scores, name: str, mark: str = "") -> list[str]:
    """A score of each way, and its differences from the first way, a mark around clear ones."""
    base, *others = (each[name] for each in scores.values())
    differences = [paired_difference(values, base) for values in others]
    places = max((places_for(base, found) for found in differences), default=digits_for(base))
    cells = [spread(values, places) for values in (base, *others)]
    for found in differences:
        width = f" ± {found.half_width:.{places}f}" * (found.pairs > 1)
        around = mark * found.is_clear
        cells.append(f"{around}{number(found.mean, places, '+')}{width}{around}")
    return cells


def _parts(scores: Scores) -> Iterator[Scores]:
    """The scores, a few at a time."""
    names = list(next(iter(scores.values())))
    for start in range(0, len(names), _MOST_COLUMNS):
        few = names[start : start + _MOST_COLUMNS]
        yield {arm: {name: each[name] for name in few} for arm, each in scores.items()}


def _longest_word(texts: Sequence[str]) -> int:
    return max(len(word) for text in texts for word in text.split())
