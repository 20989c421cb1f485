from io import StringIO

from rich.console import Console

from lightning_mmix.core.plan import Recipe
from lightning_mmix.cuts.sites import Site
from lightning_mmix.cuts.tables import cut_table, layer_table


def rendered(table, width=80):
    console = Console(width=width, file=StringIO(), legacy_windows=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


FOUND = "target: labels; input: input_ids; mixed until 50% of the training"
ENCODER = "sentiment_classifier.bert.encoder"


def layers(names, found="", **kwargs):
    sites = {name: Site(name, "", (7, 32), i / 20) for i, name in enumerate(names)}
    return rendered(layer_table(Recipe(1.0, names), sites, found), **kwargs)


def test_the_layers_of_a_recipe_are_shown_with_their_shares_and_what_is_known_of_them():
    recipe = Recipe(0.2, {"net.layer1": 3.0, "input": 1.0})
    sites = {
        "input": Site("input", "", None, 0.0),
        "net.layer1": Site("net.layer1", "Sequential", (64, 8, 8), 0.32),
    }
    assert rendered(layer_table(recipe, sites)) == (
        "         Manifold Mixup, alpha = 0.2\n"
        "layer         hidden state   depth   of steps\n"
        "─────────────────────────────────────────────\n"
        "input                           0%        25%\n"
        "net.layer1   (B, 64, 8, 8)     32%        75%"
    )


def test_of_layers_that_were_not_verified_only_the_shares_are_shown():
    assert rendered(layer_table(Recipe(2.0, {"input": 1.0, "net.layer1": 3.0}), {})) == (
        "Manifold Mixup, alpha = 2\n"
        "layer            of steps\n"
        "─────────────────────────\n"
        "input                 25%\n"
        "net.layer1            75%"
    )


def test_long_names_stand_on_one_line_of_80_columns():
    assert layers([f"{ENCODER}.layer.{i}" for i in (2, 5)], FOUND) == (
        "                         Manifold Mixup, alpha = 1\n"
        "layer                                       hidden state   depth   of steps\n"
        "───────────────────────────────────────────────────────────────────────────\n"
        f"{ENCODER}.layer.2     (B, 7, 32)      0%        50%\n"
        f"{ENCODER}.layer.5     (B, 7, 32)      5%        50%\n"
        "     target: labels; input: input_ids; mixed until 50% of the training"
    )


def test_a_name_gives_up_its_first_parts_where_there_is_no_room():
    shown = layers([f"model.{ENCODER}.layer.11.attention.output", "head"]).splitlines()
    assert max(map(len, shown)) <= 80
    assert [row.split()[0] for row in shown[3:]] == [
        "….bert.encoder.layer.11.attention.output",
        "head",
    ]
    assert layers([f"{ENCODER}.layer.2"], width=50).splitlines()[-1] == (
        "….layer.2            (B, 7, 32)      0%       100%"
    )


def test_kinds_of_mixing_other_than_interpolation_alone_are_shown():
    def title(kind):
        return rendered(layer_table(Recipe(1.0, ["input"], kind=kind), {})).splitlines()[0].strip()

    assert title({"mixup": 2.0, "cutmix": 0.0}) == "Manifold Mixup, alpha = 1"
    assert title("cutmix") == "Manifold Mixup, alpha = 1, kind = cutmix"
    both = title({"mixup": 3.0, "cutmix": 1.0})
    assert both == "Manifold Mixup, alpha = 1, kind = mixup 75%, cutmix 25%"


def test_of_many_layers_the_first_and_the_last_are_shown():
    shown = layers([f"layer{i}" for i in range(20)], FOUND).splitlines()
    assert [row.split() for row in shown[3:-1]] == [
        *([f"layer{i}", "(B,", "7,", "32)", f"{5 * i}%", "5%"] for i in range(3)),
        ["…", "15", "more", "75%"],
        *([f"layer{i}", "(B,", "7,", "32)", f"{5 * i}%", "5%"] for i in (18, 19)),
    ]
    assert layers([f"layer{i}" for i in range(6)]).count("layer") == 1 + 6


def test_what_was_found_in_a_batch_stays_on_one_line():
    found = "target: batch[1]; input: batch[0]; mixed until 50% of the training"
    shown = rendered(layer_table(Recipe(2.0, {"input": 1.0}), {}, found)).splitlines()
    assert (shown[-1], len(shown[1])) == (found, len(found))


def test_batches_that_are_left_alone_count_as_none_of_the_shares():
    shown = rendered(layer_table(Recipe(2.0, {"input": 1.0, "net": 3.0}, prob=0.5), {}))
    assert [row.split()[-1] for row in shown.splitlines()[3:]] == ["12%", "38%"]


def test_the_sites_of_a_network_are_shown_with_reasons():
    sites = [
        Site("input", "", (3, 8, 8), 0.0),
        Site("layer1.conv", "Conv2d", (64, 8, 8), 0.25, False, "is bypassed"),
        Site("layer1.drop", "Dropout", None, None, False, "never runs"),
        Site("layer1", "Block", (64, 8, 8), 0.25),
        Site("head", "Linear", (10,), 1.0),
    ]
    assert rendered(cut_table({site.name: site for site in sites}, {"input", "layer1"})) == (
        "layer         type       hidden state   depth   mix?\n"
        "───────────────────────────────────────────────────────────\n"
        "input                    (B, 3, 8, 8)      0%   auto\n"
        "layer1.conv   Conv2d    (B, 64, 8, 8)     25%   is bypassed\n"
        "layer1.drop   Dropout                           never runs\n"
        "layer1        Block     (B, 64, 8, 8)     25%   auto\n"
        "head          Linear          (B, 10)    100%   yes\n"
        " 3 of 5 can be mixed; depth is the share of the work done"
    )


def bypassed(name, reason="is bypassed"):
    return Site(name, "Conv2d", (8, 4, 4), 0.25, is_cut=False, reason=reason)


NETWORK = [
    Site("stem", "Conv2d", (8, 4, 4), 0.1),
    bypassed("net.0.conv"),
    bypassed("net.0.drop", "never runs in forward"),
    bypassed("net.0.norm"),
    Site("net.0.act", "ReLU", (8, 4, 4), 0.3),
    Site("net.0", "Block", (8, 4, 4), 0.3),
    bypassed("way.conv"),
    bypassed("way.norm", "is bypassed by layer 'way.conv'"),
    bypassed("way"),
    bypassed("gate"),
    Site("", "Whole", (5,), 1.0),
]


def test_layers_that_can_not_be_mixed_share_a_row_with_their_neighbours_in_the_same_layer():
    shown = rendered(cut_table({site.name: site for site in NETWORK}, is_folded=True))
    assert [row.split()[0] for row in shown.splitlines()[2:-2]] == [
        "stem", "net.0.*", "net.0.act", "net.0", "way.*", "way", "gate"
    ]  # fmt: skip
    assert "net.0.*     3 layers                          is bypassed, …\n" in shown
    assert "way.*       2 layers                          is bypassed\n" in shown
    assert shown.endswith(" 4 of 11 can be mixed; depth is the share of the work done")


def test_python_has_a_row_for_each_layer():
    assert cut_table({site.name: site for site in NETWORK}).row_count == len(NETWORK)


def test_what_ends_with_the_network_holds_nothing_together():
    sites = [bypassed("net.a"), bypassed("net.b"), Site("net", "Net", (5,), 1.0)]
    assert cut_table({site.name: site for site in sites}, is_folded=True).row_count == 3


def test_neither_names_nor_sizes_are_broken_where_there_is_little_room():
    sites = [Site(f"model.{ENCODER}.{i}", "Transformer" * 3, (512, 16, 16), 0.5) for i in range(2)]
    shown = rendered(cut_table({site.name: site for site in sites}), width=60).splitlines()
    assert len(shown) == 2 + len(sites) + 1
    assert all(row.startswith("….") and "(B, 512, 16, 16)" in row for row in shown[2:4])
    whole = Site("model.blocks.10.attn.proj_drop", "VisionTransformer", (12, 16, 16), 0.5)
    assert whole.name in rendered(cut_table({whole.name: whole}), width=70)


def test_a_caption_that_is_wider_than_the_table_stays_on_one_line():
    shown = rendered(cut_table({"input": Site("input", "", (3,), 0.0)})).splitlines()
    assert shown[-1] == "1 of 1 can be mixed; depth is the share of the work done"
