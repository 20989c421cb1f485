from io import StringIO

from rich.console import Console

from lightning_mmix.compare.score_tables import score_table


def rendered(table):
    console = Console(width=80, file=StringIO(), legacy_windows=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def test_scores_are_shown_with_their_differences_from_the_first():
    scores = {
        "no mixing": {"accuracy %": [90.0, 92.0], "NLL": [0.5, 0.7]},
        "manifold mixup": {"accuracy %": [93.0, 93.0], "NLL": [0.25, 0.25]},
    }
    assert rendered(score_table(scores, "Test scores")) == (
        "                   Test scores\n"
        "                      accuracy %              NLL\n"
        "─────────────────────────────────────────────────\n"
        "no mixing           91.00 ± 1.41    0.600 ± 0.141\n"
        "manifold mixup      93.00 ± 0.00    0.250 ± 0.000\n"
        "\n"
        "Δ manifold mixup   +2.00 ± 12.71   -0.350 ± 1.271\n"
        " Δ: minus no mixing, ± half of its 95 % interval"
    )


def test_several_tables_need_one_line_that_explains_them():
    scores = {"a": {"T": [1.5, 1.7]}, "b": {"T": [0.75, 0.75]}}
    assert rendered(score_table(scores, explains=False)) == (
        "                 T\n"
        "──────────────────\n"
        "a      1.60 ± 0.14\n"
        "b      0.75 ± 0.00\n"
        "\n"
        "Δ b   -0.85 ± 1.27"
    )
