"""The oracles: everything once more, a sample or a pass at a time, as the paper writes it."""

import itertools
import math
import statistics

import numpy as np
import torch


def mix(hidden, lam, partner):
    """The authors' line, out*lam + out[index]*(1-lam), a sample at a time."""
    return torch.stack([hidden[i] * lam + hidden[j] * (1 - lam) for i, j in enumerate(partner)])


def mix_each(hidden, lams, partner):
    """A weight for each sample, a sample at a time."""
    rows = zip(lams, partner, strict=True)
    return torch.stack([hidden[i] * lam + hidden[j] * (1 - lam) for i, (lam, j) in enumerate(rows)])


def taken(lam, centre, space):
    """The positions that come from the partner, one at a time: those of a box, or all others."""
    side = (1 - lam) ** (1 / len(space))
    positions = list(itertools.product(*map(range, space)))
    inside = []
    for position in positions:
        edges = [(max(0.0, c - side / 2), min(1.0, c + side / 2)) for c in centre[: len(space)]]
        bounds = [
            (math.floor(low * n + 0.5), math.floor(high * n + 0.5))
            for (low, high), n in zip(edges, space, strict=True)
        ]
        if all(low <= at < high for at, (low, high) in zip(position, bounds, strict=True)):
            inside.append(position)
    if len(inside) > len(positions) / 2:
        return [position for position in positions if position not in inside]
    return inside


def paste(hidden, positions, partner, dims):
    """Every sample with its partner's values at these positions, a sample and a position a time."""
    rows = []
    for i, j in enumerate(partner):
        row = hidden[i].clone()
        for position in positions:
            index = [slice(None)] * row.dim()
            for dim, at in zip(dims, position, strict=True):
                index[dim - 1] = at
            row[tuple(index)] = hidden[j][tuple(index)]
        rows.append(row)
    return torch.stack(rows)


def two_pass(run, plan, modules, target):
    """Loss and gradients of λ·L(y) + (1 - λ)·L(y[partner]), one whole forward pass for each.

    ``run(target)`` is an unmixed training step; ``modules`` maps layer names to modules.
    """

    def one_pass(labels):
        def hook(module, args, output):
            return mix(output, plan.lam.to(output.dtype), plan.partner.tolist())

        handle = modules[plan.layer].register_forward_hook(hook)
        try:
            return run(labels)
        finally:
            handle.remove()

    return mixed(one_pass, plan, target)


def mixed(run, plan, target):
    """λ·L(y) + (1 - λ)·L(y[partner]), with the same noise in both."""
    state = torch.get_rng_state()
    first = run(target.clone())
    torch.set_rng_state(state)
    second = run(target[plan.partner].clone())
    return plan.lam * first + (1 - plan.lam) * second


def step(module, plan, batch):
    """Loss and gradients of a step of ``fitting.Net``, on the weights that it has now."""
    x, y = batch
    if plan is None:
        loss = module.criterion(module(x), y)
    elif plan.layer == "input":
        x = mix(x, plan.lam, plan.partner.tolist())
        loss = mixed(lambda y: module.criterion(module(x), y), plan, y)
    else:
        modules = dict(module.named_modules())
        loss = two_pass(lambda y: module.criterion(module(x), y), plan, modules, y)
    return loss, torch.autograd.grad(loss, list(module.parameters()), materialize_grads=True)


def negative_log_likelihood(logits, target):
    return sum(-row.softmax(0)[y].log() for row, y in zip(logits, target, strict=True)) / len(
        target
    )


def brier(logits, target):
    total = 0.0
    for row, y in zip(logits, target, strict=False):
        for c, p in enumerate(row.softmax(0)):
            total += (p - float(c == y)) ** 2
    return total / len(target)


def two_classes(scores, form):
    """One score a label of two classes, as two scores each."""
    pairs = [(0.0, s) if form == "logits" else (1 - s, s) for s in scores.flatten().tolist()]
    return torch.tensor(pairs, dtype=scores.dtype).reshape(-1, 2)


def accuracy(logits, target):
    hits = [float(row.argmax() == y) for row, y in zip(logits, target, strict=True)]
    return sum(hits) / len(hits)


def mixed_accuracy(logits, target, plan):
    """λ·acc(y) + (1 - λ)·acc(y[partner])."""
    partners = torch.stack([target[j] for j in plan.partner.tolist()])
    lam = float(plan.lam)
    return lam * accuracy(logits, target) + (1 - lam) * accuracy(logits, partners)


def ece(logits, target, num_bins):
    return calibration_error(bins(logits, target, equal_width(logits, num_bins)), "l1")


def equal_width(logits, num_bins):
    """The samples of each bin of [0, 1], the last one closed."""
    confidences = [float(row.softmax(0).max()) for row in logits]
    return [
        [
            i
            for i, p in enumerate(confidences)
            if b / num_bins <= p < (b + 1) / num_bins or (b == num_bins - 1 and p == 1)
        ]
        for b in range(num_bins)
    ]


def equal_mass(logits, num_bins):
    """The samples in the order of their confidence, cut into equal groups."""
    # of two confidences of 1 in floating point, the one that leaves less to the others is larger
    doubts = [-float(row.double().softmax(0).sort().values[:-1].sum()) for row in logits]
    return [group.tolist() for group in np.array_split(np.argsort(doubts), num_bins)]


def bins(logits, target, groups):
    """Of each group of samples their number, the sum of confidences and the number correct."""
    rows = []
    for group in groups:
        probs = [logits[i].softmax(0) for i in group]
        confidence = sum(float(p.max()) for p in probs)
        correct = sum(float(p.argmax() == target[i]) for i, p in zip(group, probs, strict=True))
        rows.append((float(len(group)), confidence, correct))
    return torch.tensor(rows).T


def calibration_error(bins, norm):
    rows = [(n, confidence / n - correct / n) for n, confidence, correct in bins.T.tolist() if n]
    total = sum(n for n, _ in rows)
    return {
        "l1": sum(n / total * abs(gap) for n, gap in rows),
        "l2": math.sqrt(sum(n / total * gap**2 for n, gap in rows)),
        "debiased": math.sqrt(max(0.0, debiased_square(bins))),
        "max": max(abs(gap) for _, gap in rows),
        "signed": sum(n / total * gap for n, gap in rows),
    }[norm]


def debiased_square(bins):
    """Σ n/M·(gap² - the variance of the mean label), over bins of two samples and more."""
    total = 0.0
    for n, confidence, correct in bins.T.tolist():
        if n >= 2:
            labels = [1.0] * round(correct) + [0.0] * round(n - correct)
            noise = statistics.variance(labels) / n
            total += n * ((confidence / n - correct / n) ** 2 - noise)
    return total / float(bins[0].sum())


def smooth_error(logits, target, bandwidth, points=1000):
    """∫ abs(mean of (confidence - correct)·K) on a mesh, with as many reflections as count."""
    probs = [row.double().softmax(0) for row in logits]
    at = (np.arange(points) + 0.5) / points
    total = np.zeros(points)
    for p, y in zip(probs, target, strict=True):
        confidence, miss = float(p.max()), float(p.max()) - float(p.argmax() == y)
        for image in range(-4, 5):
            for place in (2 * image + confidence, 2 * image - confidence):
                total += miss * np.exp(-(((at - place) / bandwidth) ** 2) / 2)
    return float(np.abs(total).mean()) / (len(probs) * bandwidth * math.sqrt(2 * math.pi))


def class_bins(logits, target, num_bins):
    """Of each class and bin the number of samples, the sum of probabilities and of own labels."""
    found = torch.zeros(3, logits.shape[1], num_bins)
    for row, y in zip(logits, target, strict=True):
        for c, p in enumerate(row.softmax(0).tolist()):
            found[:, c, min(int(p * num_bins), num_bins - 1)] += torch.tensor([1, p, float(c == y)])
    return found


def classwise_ece(logits, target, num_bins):
    """Σ_c Σ_b n_bc/M·abs(frequency - probability) by the number of classes."""
    rows = class_bins(logits, target, num_bins).flatten(1).T.tolist()
    gaps = [n * abs(own / n - p / n) for n, p, own in rows if n]
    return sum(gaps) / len(target) / logits.shape[1]


def singular_values(hidden, target, num_classes, *, centred):
    """Of the matrix of each class's states; as many as there are features."""
    values = torch.zeros(num_classes, hidden.shape[1], dtype=torch.float64)
    for c in range(num_classes):
        matrix = torch.stack([h for h, y in zip(hidden.double(), target, strict=True) if y == c])
        found = torch.linalg.svdvals(matrix - matrix.mean(0) if centred else matrix)
        values[c, : len(found)] = found
    return values


def effective_rank(values):
    shares = [float(v) / float(values.sum()) for v in values]
    return math.exp(-sum(p * math.log(p) for p in shares if p > 0))
