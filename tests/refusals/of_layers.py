"""Layers, what they put out, and the operation."""

import torch
from fitting import Net, fit
from torch import nn

from lightning_mmix import ManifoldMixup, MixPlan, mix, mixed_loss, mixing
from lightning_mmix.core.plan import Recipe
from lightning_mmix.pairing.gates import Gates
from lightning_mmix.pairing.step import Step
from refusals.table import ORDER, X, Y, puts_out, row


@row(
    "there is no layer 'net.7'; did you mean 'net.2' or 'net.1' or 'net.0'?",
    "corrects the name",
)
def a_layer_is_misspelt():
    fit(Net(), ManifoldMixup(layers=["net.7"]))


@row(
    "no layer matches 'net.l*'; did you mean 'net.*'?",
    "corrects the glob",
)
def a_glob_matches_nothing():
    fit(Net(), ManifoldMixup(layers=["net.l*"]))


@row("there is no layer '2'; did you mean 'net.2'?", "writes the name out")
def a_layer_is_named_without_its_first_parts():
    fit(Net(), ManifoldMixup(layers=["2"]))


@row("layer 'net.0' is named twice", "names it once")
def a_layer_is_named_twice():
    fit(Net(), ManifoldMixup(layers=["net.0", "net.0"]))


@row("layer 'net.0' is named twice, the second time by 'net.?'", "takes one of them out")
def a_glob_names_a_layer_again():
    fit(Net(), ManifoldMixup(layers=["net.0", "net.?"]))


@row(
    "expected 'auto', a list of names, or a mapping of names to weights as layers, but got "
    "'net.0'; write ['net.0']",
    "puts it into a list",
)
def a_layer_is_named_without_a_list():
    ManifoldMixup(layers="net.0")


@row(
    "expected a list of layer names, as ['input', 'net.layer1'], or a mapping of names to weights, "
    "but got layers=[]",
    "names some",
)
def no_layer_is_named():
    fit(Net(), ManifoldMixup(layers=[]))


@row(
    "layer 'blocks', a ModuleList, never runs itself; did you mean 'blocks.0'?",
    "names what is in it",
)
def a_list_of_modules_is_named():
    module = Net()
    module.blocks = nn.ModuleList([nn.Linear(4, 5)])
    fit(module, ManifoldMixup(layers=["blocks"]))


@row("expected a finite alpha ≥ 0, but got -1", "corrects it")
def alpha_is_negative():
    ManifoldMixup(-1)


@row("expected a finite weight ≥ 0 for 'net.0', but got -1", "corrects it")
def a_weight_is_negative():
    ManifoldMixup(layers={"net.0": -1})


@row("expected a layer with a weight > 0, but got {'net.0': 0}", "gives one a weight")
def no_layer_has_a_weight():
    ManifoldMixup(layers={"net.0": 0})


@row(
    "expected a list of layer names, as ['input', 'net.layer1'], or a mapping of names to weights, "
    "but got layers='auto'; only ManifoldMixup and Mixer have a model to choose by",
    "names some, or lets a Mixer choose",
)
def a_recipe_is_to_choose_its_layers():
    Recipe(1, "auto")


@row("layer 'a' is named twice", "names it once")
def a_recipe_names_a_layer_twice():
    Recipe(1, ["a", "a"])


@row("expected prob in [0, 1], but got 2", "corrects it")
def a_share_of_batches_is_larger_than_one():
    Recipe(1, {"a": 1}, prob=2)


@row("there is no kind='cutmx'; did you mean 'cutmix'?", "corrects the name")
def a_kind_is_misspelt():
    Recipe(1, {"a": 1}, kind="cutmx")


@row(
    "labels='own' has the right expectation for interpolation alone, but got kind='cutmix'; use "
    "kind='mixup' or labels='paired'",
    "takes one or the other",
)
def own_labels_are_asked_for_with_boxes():
    Recipe(1, {"a": 1}, kind="cutmix", labels="own")


@row("expected a whole number in [0, 2**64) as seed, but got -1", "corrects it")
def a_seed_is_negative():
    ManifoldMixup(seed=-1)


@row(
    "the plan mixes layer 'b', but gates were made for ['a']; make them for all layers of the "
    "recipe, Gates(model, recipe.layers)",
    "makes gates for the layers of all plans",
)
def a_plan_names_a_layer_that_has_no_gate():
    gates = Gates(nn.ModuleDict({"a": nn.Identity()}), ["a"])
    gates.arm(Step(MixPlan("b", torch.tensor(0.75), ORDER)))


@row(
    "layer 'b' did not run, so nothing was mixed; name one that runs, or if the model is "
    "compiled make its gates before the loop, gates = Gates(model, layers), and use "
    "mixing(gates, plan, y)",
    "names another layer, or makes gates once",
    UserWarning,
)
def a_layer_does_not_run_in_a_loop_of_ones_own():
    model = nn.ModuleDict({"b": nn.Identity()})
    with mixing(model, MixPlan("b", torch.tensor(0.75), ORDER), Y.clone()):
        pass


@row(
    "layer 'a' puts out int64 (6,), and no floating-point hidden state; mix another one",
    "names another layer",
)
def a_layer_puts_out_integers():
    puts_out(lambda x, y: torch.arange(6))


@row(
    "layer 'a' puts out a PackedSequence, which has no row for each sample; mix a layer before it, "
    "or one behind pad_packed_sequence",
    "names another layer",
)
def a_layer_packs_its_samples():
    puts_out(lambda x, y: nn.utils.rnn.pack_sequence([*x[:, None].repeat(1, 2, 1)]))


@row(
    "layer 'a' puts out float32 (4, 6, 1) for 6 samples, which is not batch-first; have the "
    "network put the batch first, by batch_first=True or a transpose, or mix another layer",
    "transposes in the network",
)
def a_layer_puts_time_first():
    puts_out(lambda x, y: x.T[..., None])


@row(
    "layer 'a' puts out 12 rows for 6 samples, 2 for each (views, copies or domains in one call"
    " of the network?); call it for each of them, or join them and repeat the labels, "
    "y.repeat(2), in on_after_batch_transfer, or if the step itself repeats the batch mix "
    "layers=['input']",
    "mixes the input, runs the network on each view, or repeats the labels",
)
def two_views_run_in_one_pass():
    puts_out(lambda x, y: torch.cat([x, x]))


@row(
    "layer 'a' puts out 4 rows for 6 samples, as where the step cuts up the batch, drops "
    "samples, or has another batch; rather take a smaller batch_size with "
    "accumulate_grad_batches, and drop samples in the collate function or in "
    "on_after_batch_transfer",
    "takes smaller batches",
)
def a_micro_batch_runs():
    puts_out(lambda x, y: x[:4])


@row(
    "layer 'a' puts out 9 rows for 6 samples, so that it can't be told whose they are; mix a "
    "layer that has a row for each sample whenever it runs, or bring another batch that runs "
    "through it in as many rows",
    "runs the domains one after the other, or names a layer behind the pooling",
)
def a_smaller_domain_runs_along():
    puts_out(lambda x, y: torch.cat([x, x[:3]]))


@row(
    "layer 'a' puts out, beside its hidden state, an input that requires a gradient (as "
    "positions do, for forces), which a mixed copy in its place would break; mix a layer that "
    "puts out its hidden state alone, as 'a.inner' may",
    "names a layer within the representation",
)
def a_layer_passes_on_the_positions():
    puts_out(lambda x, y: {"positions": x.clone().requires_grad_(), "hidden": x * 2})


@row(
    "the rows of layer 'a' were chosen by the target, as by x[keep], and its partner's target "
    "chooses others; drop samples before the training step, in the collate function or in "
    "on_after_batch_transfer",
    "drops them in on_after_batch_transfer",
)
def samples_are_dropped_by_their_labels():
    puts_out(lambda x, y: x[y > 1])


FOLLOWS = (
    "the hidden state of layer 'a' follows from the target: if the network takes labels beside "
    "its input, mix a layer that runs before them, or use labels='own', ManifoldMixupMixin or "
    "mixed_loss, where it gets the sample's own; if its input is cut from the target's own "
    "tensor, make them two entries of the batch in on_after_batch_transfer, the target a "
    ".clone()"
)


@row(
    "the hidden state of layer 'a' follows from the target, so it can't be mixed: if the "
    "network takes labels, or inputs made by them, mix layers=['input'] or a layer that runs "
    "before, or use labels='own', ManifoldMixupMixin or mixed_loss; if input and target are "
    "cut from one tensor, return two entries from on_after_batch_transfer, the target a "
    ".clone()",
    "gives the batch two entries",
)
def input_and_target_are_cut_from_one_tensor():
    puts_out(lambda x, y: y.float().exp())


@row(
    "the hidden state of layer 'a' follows from the target, so it can't be mixed: if the "
    "network takes labels, or inputs made by them, mix layers=['input'] or a layer that runs "
    "before, or use labels='own', ManifoldMixupMixin or mixed_loss; if input and target are "
    "cut from one tensor, return two entries from on_after_batch_transfer, the target a "
    ".clone()",
    "names an earlier layer, or uses the mixin",
)
def the_network_takes_the_labels_as_a_condition():
    puts_out(lambda x, y: x * y[:, None])


def mixes(hidden=X, lam=0.75, partner=ORDER):
    mix(hidden, lam, partner)


@row(
    "expected a dense hidden state, but got a torch.sparse_coo tensor", "makes it dense", TypeError
)
def a_sparse_hidden_state_is_mixed():
    mixes(torch.eye(6).to_sparse())


@row(
    "expected a floating-point hidden state, but got torch.int64; did you mean the layer that "
    "embeds it?",
    "mixes the embedding",
    TypeError,
)
def integers_are_mixed():
    mixes(Y)


@row(
    "expected a 0-d lam, or one for each sample, without gradient, but got shape (5,)",
    "gives one λ a batch, or a sample",
)
def a_lam_too_few_is_given():
    mixes(lam=torch.rand(5))


@row("expected lam in [0, 1], but got 2.0", "corrects it")
def lam_is_too_large():
    mixes(lam=2.0)


@row(
    "expected a hidden state of shape (B, ...) and a partner of shape (B,), but got (6, 4) and "
    "(3,)",
    "gives each sample a partner",
)
def partners_are_too_few():
    mixes(partner=torch.tensor([2, 0, 1]))


@row(
    "expected a permutation of range(6) as partner, but got [0, 0, 0, 0, 0, 0]",
    "gives a permutation",
)
def partners_are_no_permutation():
    mixes(partner=torch.zeros(6, dtype=torch.long))


def boxed(layer="a"):
    return MixPlan(layer, torch.tensor(0.7), ORDER, torch.tensor([0.5, 0.5, 0.5]))


def identity():
    return nn.ModuleDict({"a": nn.Identity()})


@row(
    "CutMix needs space, one to 3 dimensions besides samples and channels, but layer 'a' puts out "
    "float32 (6, 4); name another layer, or kind='mixup'",
    "names a layer with positions",
)
def a_box_is_to_be_cut_from_features():
    model = identity()
    with mixing(model, boxed()):
        model["a"](X)


@row(
    "layer 'a' puts out hidden states with (8, 8) and (4, 4) positions, which a box cuts into "
    "different shares; mix another layer",
    "names a layer of one resolution",
)
def a_layer_puts_out_two_resolutions():
    model = identity()
    with mixing(model, boxed()):
        model["a"]((torch.ones(6, 1, 8, 8), torch.ones(6, 1, 4, 4)))


@row(
    "layer 'a' puts out (4, 4) positions, and the target, which takes its partner's values in the "
    "same box, has (8, 8); mix layers=['input'] or a layer with as many, or use kind='mixup'",
    "mixes the input, or a layer with the positions of the mask",
)
def a_mask_has_other_positions_than_the_layer():
    model, masks = identity(), torch.zeros(6, 8, 8, dtype=torch.long)
    with mixing(model, boxed(), masks, input=torch.ones(6, 3, 8, 8)):
        model["a"](torch.ones(6, 1, 4, 4))


@row(
    "layer 'a' did not run, but the target holds the partner's values in a box; name layers that "
    "run in every step, or if the model is compiled make its gates first",
    "names a layer that runs",
)
def the_layer_of_a_pasted_mask_does_not_run():
    masks = torch.zeros(6, 8, 8, dtype=torch.long)
    with mixing(identity(), boxed(), masks, input=torch.ones(6, 3, 8, 8)):
        pass


@row("expected a plan with a box, but got one of mixup", "asks for a plan of CutMix")
def a_plan_without_a_box_is_asked_for_its_positions():
    MixPlan("a", torch.tensor(0.7), ORDER).at((8, 8))


@row(
    "expected the plan of a box as its layer was mixed, whose λ is the real one, but got it as it "
    "was drawn; take the callback's plan, or use the target of mixing(model, plan, y)",
    "takes the plan that the step has made of it",
)
def a_loss_is_mixed_by_a_plan_as_it_was_drawn():
    mixed_loss(nn.functional.cross_entropy, X, Y % 4, boxed())
