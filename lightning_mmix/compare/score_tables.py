"""Tables of scores: values in, a rich Table out."""

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lightning_mmix.compare.differences import mean_and_deviation, paired_difference
from lightning_mmix.compare.findings import (
    Results,
    clean_scores,
    noise_scores,
    table,
    tempered_scores,
)


def score_tables(results: Results) -> list[Table]:
    """The scores as trained, at the temperature, and under conditions, as far as there are any."""
    seeds = len(next(iter(results.values())))
    kinds = [
        (f"Test scores, mean ± std over {seeds} seeds", clean_scores),
        ("The same at the temperature T, fitted on validation data", tempered_scores),
        ("Accuracy %, the weakest noise and attacks", noise_scores),
    ]
    found = [(title, table(results, score)) for title, score in kinds]
    shown = [(title, scores) for title, scores in found if any(scores.values())]
    last = len(shown) - 1
    return [score_table(s, title, explains=i == last) for i, (title, s) in enumerate(shown)]


def score_table(
    scores: Mapping[str, Mapping[str, Sequence[float]]], title: str = "", *, explains: bool = True
) -> Table:
    """Scores of several ways to train, and what each differs by from the first.

    Args:
        scores: Way to train → score → its value in each of two or more runs. The runs of all ways
            come in the same order of seeds, so that differences are those between equal seeds.
        title: Stands above the table.
        explains: Whether a line below says what Δ is.

    Returns:
        A row a way: mean ± standard deviation over runs; and a row a difference: its mean ± half
        of its 95 % confidence interval. A column a score.
    """
    (base, first), *others = scores.items()
    caption = f"Δ: minus {base}, ± half of its 95 % interval" if explains else None
    shown = Table(
        "", title=title, caption=caption, box=SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    # percentages to two digits, what lies within [0, 1] to three
    digits = {name: 2 if max(runs) > 1 else 3 for name, runs in first.items()}
    for name in first:
        shown.add_column(name, justify="right", no_wrap=True)
    for arm, each in scores.items():
        shown.add_row(arm, *(spread(each[name], digits[name]) for name in first))
    shown.add_section()
    for arm, each in others:
        cells = []
        for name in first:
            found = paired_difference(each[name], first[name])
            cells.append(f"{found.mean:+.{digits[name]}f} ± {found.half_width:.{digits[name]}f}")
        shown.add_row(f"Δ {arm}", *cells)
    return shown


def spread(values: Sequence[float], digits: int) -> str:
    """The mean of values ± their standard deviation, if there are several."""
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.{digits}f}" + f" ± {deviation:.{digits}f}" * (len(values) > 1)
