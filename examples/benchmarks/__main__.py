"""Measure what Manifold Mixup costs, and write it down as JSON and as tables.

    PYTHONPATH=examples python -m benchmarks                      # all: half an hour on two cores
    PYTHONPATH=examples python -m benchmarks operation host       # these parts
    PYTHONPATH=examples python -m benchmarks --fast               # a minute, to see that it runs
    PYTHONPATH=examples python -m benchmarks --device cuda --out gpu.json
    PYTHONPATH=examples python -m benchmarks --show examples/benchmarks/xeon.json

All ways to train run side by side in one process, a step each in turn, with a step of the same
framework without mixing before and after: what is given is the median of the ratios to those two,
and the quartiles about it. Needs the ``bench`` extra. Where there is no GPU, no C++ compiler or
no bfloat16, what needs it says that it was not measured.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import Any

import torch

from benchmarks import counts, host, measures, operations, parts
from benchmarks.lanes import FEW, Effort, close_all
from benchmarks.tables import rendered
from benchmarks.workloads import ON_CPU, ON_GPU, TINY, Workload

PACKAGES = ("torch", "lightning", "torchvision", "timm", "torchbearer", "lightning-mmix")
Results = dict[str, Any]
Found = Iterator[Any]
"""What is known of a part after each of its networks; None if it can't be measured here."""
Part = Callable[[list[Workload], str, Effort], Found]


def main() -> None:
    """Read the command line, and measure or show."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--fast", action="store_true", help="tiny networks and few rounds")
    parser.add_argument("--rounds", type=int, default=40, help="how often each step is timed")
    parser.add_argument("--seconds", type=float, default=inf, help="fewer rounds after so many")
    parser.add_argument("--out", type=Path, help="the JSON file; parts that it has are replaced")
    parser.add_argument("--show", type=Path, help="only print the tables of a JSON file")
    options = parser.parse_args()
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    if options.show:
        print(rendered(_read(options.show, parser)))
        return
    _check(options, parser)
    before = _read(options.out, parser) if options.out and options.out.exists() else {}
    print(rendered(measure(options, before)))


def measure(options: argparse.Namespace, before: Results) -> Results:
    """Measure the parts, and write down what is known as soon as it is.

    Args:
        options: Of the command line.
        before: Parts that are known already.

    Raises:
        SystemExit: If those are of another machine.
    """
    out: Path | None = options.out
    here = machine(options.device)
    if before.get("machine", here) != here:
        raise SystemExit(f"{out} holds results of another machine or environment; take another")
    results = {**before, "machine": here}
    is_gpu = options.device == "cuda"
    works = TINY if options.fast else ON_GPU if is_gpu else ON_CPU
    turn = 0.05 if is_gpu and not options.fast else 0.0
    effort = Effort(4 if options.fast else options.rounds, options.seconds, turn)
    if is_gpu:
        torch.set_float32_matmul_precision("high")  # as Lightning advises
    for part in options.parts or PARTS:
        print(f"{part} …", file=sys.stderr, flush=True)
        for found in PARTS[part](works, options.device, effort):
            results[part] = found
            if out:
                out.write_text(json.dumps(results, indent=1) + "\n")
            close_all()
    return results


def _check(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here; --device cpu")
    if options.rounds < FEW:  # a spread needs two, and large hidden states get a third of them
        parser.error(f"expected --rounds of at least {FEW}, but got {options.rounds}")
    if options.out and not options.out.absolute().parent.is_dir():
        parser.error(f"there is no folder {options.out.absolute().parent}")


def _read(path: Path, parser: argparse.ArgumentParser) -> Results:
    try:
        results: Results = json.loads(path.read_text())
        results["machine"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        parser.error(f"{path} holds no results of this command: {error!r}")
    return results


def machine(device: str) -> dict[str, Any]:
    """What it was measured on, and with."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def processor() -> str:
    """The name of the processor, as the system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _operation(works: list[Workload], device: str, effort: Effort) -> Found:
    sizes = [(4**k * 2**16, 128) for k in range(7)]
    sizes += [(2**24, samples) for samples in (32, 1024)]
    yield operations.operation(device, sizes[:2] if works is TINY else sizes, effort)


def _half(works: list[Workload], device: str, effort: Effort) -> Found:
    # a processor without such instructions takes seconds for a step
    is_native = device == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return _each(measures.half_steps)(works, device, effort) if is_native else iter([None])


def _compiled(works: list[Workload], device: str, effort: Effort) -> Found:
    has_compiler = device == "cuda" or any(map(shutil.which, ("g++", "clang++", "c++")))
    # whose compilation takes minutes: a convolutional network and a transformer
    some = [works[1], works[-1]] if device == "cuda" and works is not TINY else works
    return _each(measures.compiled_steps)(some, device, effort) if has_compiler else iter([None])


def _host(works: list[Workload], device: str, effort: Effort) -> Found:
    rows: list[measures.Row] = []
    with host.one_thread():
        for case in host.CASES[::6] if works is TINY else host.CASES:
            rows = [*rows, *host.added(case, device, effort)]
            yield {"added": rows}
        yield {"added": rows, "parts": parts.parts(device, effort)}


def _batches(works: list[Workload], device: str, effort: Effort) -> Found:
    work = works[-1] if works is TINY else works[1]
    sizes = [len(work.batch("cpu")[1]) * factor for factor in (1, 2, 4)]
    yield measures.batches(work, device, sizes, effort)


def _ranks(works: list[Workload], device: str, effort: Effort) -> Found:
    if device == "cuda" and torch.cuda.device_count() < 2:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "row.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node=2", "-m", "benchmarks.ranks", str(file), device]
        name = (works[0] if works is TINY else works[1]).name
        done = subprocess.run(
            [*command, str(effort.rounds), name], check=False, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise SystemExit(f"the two processes failed: {done.stderr}")
        yield json.loads(file.read_text())


def _each(one: Callable[[Workload, str, Effort], list[measures.Row]]) -> Part:
    def all_of_them(works: list[Workload], device: str, effort: Effort) -> Found:
        rows: list[measures.Row] = []
        for work in works:
            rows = [*rows, *one(work, device, effort)]
            yield rows

    return all_of_them


PARTS: dict[str, Part] = {
    "operation": _operation,
    "steps": _each(measures.steps),
    "bf16": _half,
    "compiled": _compiled,
    "memory": _each(lambda work, device, _: counts.memory(work, device)),
    "waits": _each(lambda work, device, _: [counts.synchronisations(work, device)]),
    "host": _host,
    "batches": _batches,
    "ranks": _ranks,
}

if __name__ == "__main__":
    main()
