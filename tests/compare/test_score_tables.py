from io import StringIO

from rich.console import Console

from lightning_mmix.compare.score_tables import markdown_table, score_table, score_tables


def rendered(table, width=80):
    console = Console(width=width, file=StringIO(), legacy_windows=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def test_scores_are_shown_with_their_differences_from_the_first():
    scores = {
        "no mixing": {"accuracy %": [90.0, 92.0], "NLL": [0.5, 0.7]},
        "manifold mixup": {"accuracy %": [93.0, 93.0], "NLL": [0.25, 0.25]},
    }
    assert rendered(score_table(scores, "Test scores")) == (
        "                  Test scores\n"
        "                     accuracy %             NLL\n"
        "───────────────────────────────────────────────\n"
        "no mixing          91.00 ± 1.41   0.600 ± 0.141\n"
        "manifold mixup     93.00 ± 0.00   0.250 ± 0.000\n"
        "\n"
        "Δ manifold mixup  +2.00 ± 12.71  -0.350 ± 1.271\n"
        "Δ: minus no mixing, ± half of its 95 % interval"
    )


def test_several_tables_need_one_line_that_explains_them():
    scores = {"a": {"T": [1.5, 1.7]}, "b": {"T": [0.75, 0.75]}}
    assert rendered(score_table(scores, explains=False)) == (
        "                T\n"
        "─────────────────\n"
        "a     1.60 ± 0.14\n"
        "b     0.75 ± 0.00\n"
        "\n"
        "Δ b  -0.85 ± 1.27"
    )


WIDE = {
    "no mixing": {name: [91.53, 91.55] for name in ("accuracy %", "NLL", "ECE %", "Brier")},
    "manifold mixup": {name: [0.53, 91.55] for name in ("accuracy %", "NLL", "ECE %", "Brier")},
}


def test_labels_give_way_before_numbers_wrap():
    table = rendered(score_table(WIDE))
    assert "    -45.50 ± 578.13  -45.50 ± 578.13" in table
    assert max(map(len, table.splitlines())) <= 80


def test_in_a_narrow_terminal_nothing_is_cut_and_captions_wrap_between_words():
    table = rendered(score_table(WIDE, "Scores"), 60)
    assert "…" not in table
    assert "Δ manifold    -45.50 ±    -45.50 ±    -45.50 ±      -45.50 ±\n" in table
    assert table.splitlines()[-1].strip() == "Δ: minus no mixing, ± half of its 95 % interval"


def test_a_caption_that_is_wider_than_the_table_stays_on_one_line():
    scores = {"a": {"loss": [1.5, 1.7]}, "b": {"loss": [0.75, 0.75]}}
    last = rendered(score_table(scores)).splitlines()[-1]
    assert last == "Δ: minus a, ± half of its 95 % interval"


def test_of_one_run_there_is_a_difference_without_a_width():
    assert markdown_table({"a": {"T": [1.5]}, "b": {"T": [0.75]}}) == [
        "|  | a | b | Δ b |",
        "| --- | --: | --: | --: |",
        "| T | 1.50 | 0.75 | -0.75 |",
    ]


def test_what_a_module_logs_is_shown_four_at_a_time():
    own = {f"test/{i}": float(i) for i in range(6)}
    runs = [{"own": own, "unmeasured": "targets are no labels"}] * 2
    tables = score_tables({"a": runs, "b": runs})
    assert [len(table.columns) for table in tables] == [5, 3]
    assert [bool(table.caption) for table in tables] == [True, False]
    assert tables[0].title == "What the module logs, mean ± std over 2 seeds"


def test_in_markdown_what_is_clear_is_bold_and_no_number_breaks():
    scores = {"a": {"NLL": [0.5, 0.6]}, "b": {"NLL": [0.3, 0.401]}, "c": {"NLL": [0.4998, 0.6001]}}
    row = markdown_table(scores)[-1].split(" | ")
    assert row[-2] == "**-0.199\xa0±\xa00.006**"
    assert row[-1] == "0.000\xa0±\xa00.002 |"


def test_a_clear_difference_is_not_rounded_to_zero():
    scores = {"a": {"loss": [5.0, 5.0, 5.0]}, "b": {"loss": [5.0029, 5.003, 5.0031]}}
    assert markdown_table(scores)[-1].endswith("**+0.00300\xa0±\xa00.00025** |")
