"""The oracles: everything once more, a sample or a pass at a time, as the paper writes it."""

import torch


def mix(hidden, lam, partner):
    """The authors' line, out*lam + out[index]*(1-lam), a sample at a time."""
    return torch.stack([hidden[i] * lam + hidden[j] * (1 - lam) for i, j in enumerate(partner)])


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
    """Loss and gradients of a step of ``training.Net``, on the weights that it has now."""
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


def ece(logits, target, num_bins):
    probs = logits.softmax(1)
    total = 0.0
    for b in range(num_bins):
        low, high = b / num_bins, (b + 1) / num_bins
        rows = [
            i
            for i, row in enumerate(probs)
            if low <= row.max() < high or (b == num_bins - 1 and row.max() == 1)
        ]
        if rows:
            correct = sum(float(probs[i].argmax() == target[i]) for i in rows) / len(rows)
            confidence = sum(float(probs[i].max()) for i in rows) / len(rows)
            total += len(rows) / len(target) * abs(correct - confidence)
    return total
