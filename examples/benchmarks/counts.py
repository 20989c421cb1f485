"""What a step takes beside time: memory, allocations, synchronisations, collectives."""

import warnings
from collections.abc import Callable
from itertools import accumulate
from time import time_ns
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import loops
from benchmarks.lanes import Lane
from benchmarks.workloads import Workload

Row = dict[str, Any]


def memory(work: Workload, device: str) -> list[Row]:
    """Peak memory and allocations of a step of Lightning with the callback, over one without."""
    without = loops.lightning(work, device, [])
    hidden = hidden_bytes(work, device)
    rows = []
    for layer in work.layers:
        mixed = loops.lightning(work, device, loops.ours(layer))
        (peak, count), (base_peak, base_count) = (
            _allocated(lane, device) for lane in (mixed, without)
        )
        rows.append(
            {
                "network": work.name,
                "layer": layer,
                "hidden_bytes": hidden[layer],
                "base_peak_bytes": base_peak,
                "added_peak_bytes": peak - base_peak,
                "base_allocations": base_count,
                "added_allocations": count - base_count,
            }
        )
    return rows


def synchronisations(work: Workload, device: str) -> Row:
    """How often a step waits for a GPU, with the callback and without; None on a CPU."""
    lanes = [loops.lightning(work, device, c) for c in ([], loops.ours(work.layer))]
    without, mixed = (waits(lane, device) for lane in lanes)
    return {"network": work.name, "without": without, "with": mixed}


def waits(lane: Lane, device: str) -> int | None:
    """How often a step of a lane waits for a GPU; None on a CPU."""
    if device != "cuda":
        return None
    for _ in range(3):
        lane()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        lane()
        torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(warning.message) for warning in caught)


def collectives(lane: Lane) -> int:
    """How many collectives a step of a distributed lane carries out."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        lane()
    events = profiled.events() or []
    return sum(event.name.startswith(("gloo:", "nccl:")) for event in events)


def hidden_bytes(work: Workload, device: str) -> dict[str, int]:
    """The size of what each layer of a workload puts out, for its batch."""
    net, (x, _) = work.network(device), work.batch(device)
    sizes = {"input": x.nbytes}

    def note(name: str) -> Callable[..., None]:
        return lambda _module, _args, output: sizes.update({name: output.nbytes})

    for name in work.layers:
        if name != "input":
            net.get_submodule(name).register_forward_hook(note(name))
    with torch.no_grad():
        net(x)
    return {name: sizes[name] for name in work.layers}


def _allocated(lane: Lane, device: str) -> tuple[int, int]:
    """The peak of the memory of a step over that before it, and how many blocks it asked for."""
    for _ in range(3):
        lane()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_stats()
        lane()
        after = torch.cuda.memory_stats()
        size, count = "allocated_bytes.all", "allocation.all.allocated"
        return after[f"{size}.peak"] - before[f"{size}.current"], after[count] - before[count]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        lane()  # what it leaves behind, as gradients, is known when the next one frees it
        start = time_ns()
        lane()
    events = profiled.profiler.kineto_results.events()
    in_time = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    sizes = [size for at, size in in_time if at >= start]
    return max(accumulate(sizes, initial=0)), sum(size > 0 for size in sizes)
