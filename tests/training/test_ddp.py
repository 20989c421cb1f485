import copy

import naive
import processes
import pytest
import ranks
import torch
import torch.nn.functional as F
from fitting import Net, batches, fit
from lightning.pytorch.plugins import TorchSyncBatchNorm
from torch import nn
from torchmetrics.functional.classification import multiclass_accuracy

from lightning_mmix import ManifoldMixup
from lightning_mmix.batches.loaders import num_unrepeated
from lightning_mmix.core.plan import Recipe, draw
from lightning_mmix.metrics.temperature import temperature_scaling


def launch(folder, *command):
    processes.launch(*(ranks.__file__ if part == "SCRIPT" else part for part in command))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks")
    return launch(path, "SCRIPT", "ddp", str(path))


def kept(folder, name):
    return [torch.load(folder / f"{name}-{rank}.pt") for rank in (0, 1)]


def plans_of(name):
    """What each rank has to draw for each of its batches."""
    _, data, mixup, _, _ = ranks.FITS[name]
    layers = ["input", "net.1"] if mixup["layers"] == "auto" else mixup["layers"]
    recipe = Recipe(1.0, dict.fromkeys(layers, 1.0), mixup.get("prob", 1.0))
    for i, sizes in enumerate(zip(*data.sizes, strict=True)):
        if name == "small first" and i == 0:
            yield [None, None]  # the first rank can't choose yet
        else:
            yield [draw(recipe, n, seed=0, batch_idx=i, rank=r) for r, n in enumerate(sizes)]


def naive_weights(name, steps=None):
    """Both ranks in one process, in the naive form: their gradients are averaged."""
    module, data, _, _, kwargs = ranks.FITS[name]
    torch.manual_seed(1)
    module, every = module(), kwargs.get("accumulate_grad_batches", 1)
    module = getattr(module, "_orig_mod", module).double()  # which is not compiled
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for i, plans in enumerate(list(plans_of(name))[:steps]):
        for rank, plan in enumerate(plans):
            x, y = data.of_rank(rank)[i]
            for p, grad in zip(
                module.parameters(), naive.step(module, plan, (x.double(), y))[1], strict=True
            ):
                p.grad = grad / 2 / every + (0 if p.grad is None else p.grad)
        if (i + 1) % every == 0:
            optimizer.step()
            optimizer.zero_grad()
    return module.state_dict()


MIXED = [
    name for name in ranks.FITS if name not in ("without", "lengths") and "settled" not in name
]


def assert_naive(folder, name):
    plans, weights = list(plans_of(name)), naive_weights(name)
    for rank, found in enumerate(kept(folder, name)):
        torch.testing.assert_close(found["weights"], weights, atol=1e-10, rtol=0)
        for plan, expected in zip(found["plans"], plans, strict=True):
            assert (plan is None) == (expected[rank] is None)
            if plan is not None:
                assert plan[:2] == (expected[rank].layer, expected[rank].lam)
                assert torch.equal(plan[2], expected[rank].partner)


@pytest.mark.parametrize("name", MIXED)
def test_two_processes_train_on_the_naive_gradients(folder, name):
    assert_naive(folder, name)


def test_a_plain_loop_under_fsdp1_trains_on_the_naive_gradients(folder):
    for found in kept(folder, "by hand"):
        torch.testing.assert_close(found, dict(naive_weights("plain")), atol=1e-10, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["ddp_spawn", "ddp_fork", "torchrun"])
def test_however_they_are_launched(tmp_path, launcher):
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    start = run if launcher == "torchrun" else []
    launch(tmp_path, *start, "SCRIPT", launcher, str(tmp_path), "small first")
    assert_naive(tmp_path, "small first")


def test_the_layer_is_shared_and_the_rest_differs(folder):
    first, second = (found["plans"] for found in kept(folder, "plain"))
    assert [plan[0] for plan in first] == [plan[0] for plan in second]
    assert len({float(plan[1]) for plan in first + second}) == 8
    assert not all(torch.equal(a[2], b[2]) for a, b in zip(first, second, strict=True))


def test_all_ranks_use_the_layers_that_the_first_one_chose(folder):
    first, second = ([plan[0] for plan in found["plans"]] for found in kept(folder, "lengths"))
    assert len(first) == 3
    assert first == second


def test_all_ranks_leave_the_same_batches_alone(folder):
    mixed = [[p is not None for p in found["plans"]] for found in kept(folder, "now and then")]
    assert mixed[0] == mixed[1]
    assert {*mixed[0]} == {True, False}


def test_a_fit_settles_by_the_gap_over_all_ranks(folder):
    found = kept(folder, "settled")
    mixed = [[plan is not None for plan in each["plans"]] for each in found]
    assert mixed[0] == mixed[1]
    assert len(mixed[0]) == 12
    module = ranks.Validated().double()
    module.load_state_dict(found[0]["weights"])
    shares = [ranks.WithValidation.share(rank)[0] for rank in (0, 1)]
    x, y = (torch.cat(parts) for parts in zip(*shares, strict=True))
    confidence, best = module(x.double()).softmax(1).max(1)
    gap = confidence.mean() - (best == y).double().mean()
    for each in found:
        assert each["gap"] == pytest.approx(float(gap))


def test_a_gap_that_each_rank_logs_for_itself_is_averaged(folder):
    for found in kept(folder, "settled by a logged gap"):
        assert found["gap"] == pytest.approx(0.15)
        # four gradients, and one gap: the first validation is not of the last part
        assert found["sent"]["gloo:all_reduce"] == 4 + 1


def test_nothing_more_is_communicated(folder):
    for rank in (0, 1):
        sent = kept(folder, "plain")[rank]["sent"]
        assert sent == kept(folder, "without")[rank]["sent"]
        assert sent["gloo:all_reduce"] == 4


def test_a_loss_that_is_logged_is_sent_once_and_is_the_one_that_was_trained_on(folder):
    module, data, _, _, _ = ranks.FITS["logged"]
    torch.manual_seed(1)
    last, losses = list(plans_of("logged"))[-1], []
    module = module().double()
    before = dict(naive_weights("logged", steps=3))
    module.load_state_dict(before)
    for rank, plan in enumerate(last):
        x, y = data.of_rank(rank)[3]
        losses.append(naive.step(module, plan, (x.double(), y))[0].detach())
    for found in kept(folder, "logged"):
        torch.testing.assert_close(found["logged"], sum(losses) / 2, check_dtype=False)
        assert found["sent"]["gloo:all_reduce"] == 4 + 4  # gradients and losses


def test_auto_tells_its_choice_in_one_broadcast(folder):
    plain, auto = (kept(folder, name)[0]["sent"] for name in ("plain", "auto"))
    assert auto["gloo:all_reduce"] == plain["gloo:all_reduce"]
    assert auto["gloo:broadcast"] == plain["gloo:broadcast"] + 2  # an object and its size


def expected_scores(count, num_bins=15):
    logits, labels = (part[:count] for part in ranks.samples())
    return {
        "accuracy": float(multiclass_accuracy(logits, labels, 5, average="micro")),
        "nll": float(naive.negative_log_likelihood(logits, labels)),
        "brier": float(naive.brier(logits, labels)),
        "ece": float(naive.ece(logits, labels, num_bins)),
        "gap": float(logits.softmax(1).max(1).values.mean()) - naive.accuracy(logits, labels),
        "loss": float(F.cross_entropy(logits, labels)),
    }


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_samples_that_the_sampler_repeats_do_not_count(folder, batch_size):
    for found in kept(folder, "evaluated"):
        for stage, key in (("test", batch_size), ("val", ("validated", batch_size))):
            expected = {f"{stage}/{name}": value for name, value in expected_scores(11).items()}
            assert found[key] == pytest.approx(expected, abs=1e-6)


def test_a_rank_without_a_batch_takes_part_in_the_figures(folder):
    for found in kept(folder, "evaluated"):
        expected = {f"test/{name}": value for name, value in expected_scores(7).items()}
        assert found["few"] == pytest.approx(expected, abs=1e-6)


def test_scores_of_unequal_and_empty_parts_are_those_of_the_whole(folder):
    whole, expected = ranks.score(0, (11,)), expected_scores(11, num_bins=3)
    for found in kept(folder, "evaluated"):
        for scores in found["parts"]:
            assert scores.keys() == ranks.METRICS.keys()
            torch.testing.assert_close(scores, whole)
            named = {"ece": "l1 width", "gap": "signed width"}
            for name in ("accuracy", "nll", "brier", *named):
                value = float(scores[named.get(name, name)])
                assert value == pytest.approx(expected[name], abs=1e-6)


def test_an_evaluation_of_unequal_and_empty_shares_is_that_of_the_whole(folder):
    whole = ranks.attacked(0, (11,))
    for found in kept(folder, "evaluated"):
        for rows in found["rows"]:
            for row, expected in zip(rows, whole, strict=True):
                assert row == pytest.approx(expected, abs=1e-6)


def test_the_monitor_sees_the_samples_of_all_ranks(folder):
    (logits, labels), expected = (part[:7] for part in ranks.samples()), expected_scores(7)
    values = naive.singular_values(logits, labels, 5, centred=True)
    present = values[values[:, 0] > 1e-6]
    for found in kept(folder, "evaluated"):
        monitored = found["monitored"]
        for name in ("accuracy", "nll", "brier", "ece", "gap"):
            assert float(monitored[f"monitor/{name}"]) == pytest.approx(expected[name], abs=1e-6)
        largest = monitored["monitor/spectrum/net/largest"]
        assert float(largest) == pytest.approx(float(present[:, 0].mean()), abs=1e-5)


def test_a_measurement_is_that_of_all_ranks_without_repetitions(folder):
    expected = expected_scores(11)
    for found in kept(folder, "evaluated"):
        measured = found["measured"]
        assert measured["clean"]["samples"] == 11
        assert {row["samples"] for row in measured["conditions"]} == {11}
        for name in ("accuracy", "nll", "brier", "ece", "gap"):
            assert measured["clean"][name] == pytest.approx(expected[name], abs=1e-6)
        logits, labels = ranks.samples()
        assert measured["temperature"] == pytest.approx(float(temperature_scaling(logits, labels)))


@pytest.mark.parametrize("name", ranks.SCALED)
def test_a_temperature_is_that_of_all_ranks_without_repetitions(folder, name):
    count = 7 if name == "few" else 11
    x, y = (part[:count] for part in ranks.samples())
    first, second = (found[name] for found in kept(folder, "scaled"))
    assert first[0] == second[0]
    logits = F.linear(x, first[1]["net.weight"], first[1]["net.bias"])
    best = float(temperature_scaling(logits, y))
    assert first[0]["T"] == pytest.approx(best, rel=1e-5)
    assert first[0]["samples"] == count
    assert first[0]["nll"] == pytest.approx(float(F.cross_entropy(logits, y)), rel=1e-5)
    assert first[0]["ece_at_T"] == pytest.approx(naive.ece(logits / best, y, 15), rel=1e-3)


def test_every_rank_divides_and_keeps_the_same(folder):
    for found in kept(folder, "scaled"):
        scaled, state = found["at the end"]
        expected = F.linear(torch.eye(5), state["net.weight"], state["net.bias"]) / scaled["T"]
        torch.testing.assert_close(found["put out"], expected)
        assert found["classifier", "buffer"] == pytest.approx(found["classifier"][0]["T"])


def test_the_scores_of_one_process_are_the_naive_ones():
    (logits, labels), scores = ranks.samples(), ranks.score(0, (11,))
    bins = naive.bins(logits, labels, naive.equal_width(logits, 3))
    torch.testing.assert_close(scores["bins"], bins)
    for norm in ("l1", "l2", "debiased", "max", "signed"):
        expected = naive.calibration_error(bins, norm)
        assert float(scores[f"{norm} width"]) == pytest.approx(expected, abs=1e-6)
    rows = zip(logits.split(2), labels.split(2), strict=True)
    mixed = [len(y) / 11 * naive.mixed_accuracy(x, y, ranks.plan_of(y)) for x, y in rows]
    assert float(scores["mixed"]) == pytest.approx(sum(mixed))
    values = naive.singular_values(logits, labels, 5, centred=True)
    torch.testing.assert_close(scores["spectrum"], values, rtol=0, atol=1e-6)


def test_only_a_loader_in_order_of_a_distributed_sampler_is_cut():
    data = torch.utils.data.TensorDataset(torch.arange(5))
    sampler = torch.utils.data.DistributedSampler(data, 2, 1, shuffle=False)
    repeats = torch.utils.data.DataLoader(data, 2, sampler=sampler)
    assert [num_unrepeated(repeats, i, len(x)) for i, (x,) in enumerate(repeats)] == [2, 0]
    plain = torch.utils.data.DataLoader(data, 2)
    assert [num_unrepeated(plain, i, len(x)) for i, (x,) in enumerate(plain)] == [2, 2, 1]
    for other in ([1], None, torch.utils.data.DataLoader(data, None)):
        assert num_unrepeated(other, 3, 7) == 7


def test_a_batch_norm_that_was_converted_is_mixed(float64):
    class Normalised(Net):
        def __init__(self):
            super().__init__()
            self.net.insert(1, nn.BatchNorm1d(6))

        def on_fit_start(self):  # the strategy has just done the same
            TorchSyncBatchNorm().apply(self)
            assert isinstance(self.net[1], nn.SyncBatchNorm)

    module, callback = Normalised(), ManifoldMixup(layers=["net.1"], stop=1.0)
    untouched = copy.deepcopy(module)
    fit(module, callback)
    loss, grads = naive.step(untouched, callback.plan, batches()[0])
    torch.testing.assert_close(module.loss.detach(), loss.detach(), atol=1e-10, rtol=0)
    torch.testing.assert_close(module.grads, list(grads), atol=1e-10, rtol=0)
