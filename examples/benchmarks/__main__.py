"""Measure what Manifold Mixup costs, and write it down as JSON and as tables.

    PYTHONPATH=examples python -m benchmarks                      # all: half an hour on two cores
    PYTHONPATH=examples python -m benchmarks operation layers     # these parts
    PYTHONPATH=examples python -m benchmarks --fast               # a minute, to see that it runs
    PYTHONPATH=examples python -m benchmarks --device cuda --out gpu.json
    PYTHONPATH=examples python -m benchmarks --show examples/benchmarks/cpu.json

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
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks import counts, measures
from benchmarks.tables import rendered
from benchmarks.workloads import ON_CPU, ON_GPU, TINY, Workload

PACKAGES = ("torch", "lightning", "torchvision", "timm", "torchbearer", "lightning-mmix")
Results = dict[str, Any]


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
    """Measure the parts, and write them down as soon as each is known.

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
    works = TINY if options.fast else ON_GPU if options.device == "cuda" else ON_CPU
    rounds = 4 if options.fast else options.rounds
    for part in options.parts or PARTS:
        print(f"{part} …", file=sys.stderr, flush=True)
        results[part] = PARTS[part](works, options.device, rounds)
        if out:
            out.write_text(json.dumps(results, indent=1) + "\n")
    return results


def _check(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here; --device cpu")
    if options.rounds < 6:  # a spread needs two, and large hidden states get a third of them
        parser.error(f"expected --rounds of at least 6, but got {options.rounds}")
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


def _operation(works: list[Workload], device: str, rounds: int) -> list[measures.Row]:
    sizes = [(4**k * 2**16, 128) for k in range(7)]
    sizes += [(2**24, samples) for samples in (32, 1024)]
    return measures.operation(device, sizes[:2] if works is TINY else sizes, rounds)


def _half(works: list[Workload], device: str, rounds: int) -> list[measures.Row] | None:
    # a processor without such instructions takes seconds for a step
    is_native = device == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return _each(measures.half_steps)(works, device, rounds) if is_native else None


def _compiled(works: list[Workload], device: str, rounds: int) -> list[measures.Row] | None:
    has_compiler = device == "cuda" or any(map(shutil.which, ("g++", "clang++", "c++")))
    return _each(measures.compiled_steps)(works, device, rounds) if has_compiler else None


def _layers(works: list[Workload], device: str, rounds: int) -> list[measures.Row]:
    return measures.fixed(device, (1, 4) if works is TINY else (1, 4, 16, 64), rounds)


def _batches(works: list[Workload], device: str, rounds: int) -> list[measures.Row]:
    work = works[-1] if works is TINY else works[1]
    sizes = [len(work.batch("cpu")[1]) * factor for factor in (1, 2, 4)]
    return measures.batches(work, device, sizes, rounds)


def _ranks(works: list[Workload], device: str, rounds: int) -> measures.Row | None:
    if device == "cuda" and torch.cuda.device_count() < 2:
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "row.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node=2", "-m", "benchmarks.ranks", str(file), device]
        limit = 3 if works is TINY else rounds
        subprocess.run([*command, str(limit)], check=True, capture_output=True)
        row: measures.Row = json.loads(file.read_text())
        return row


def _each(one: Callable[[Workload, str, int], list[measures.Row]]) -> Any:
    return lambda works, device, rounds: [r for w in works for r in one(w, device, rounds)]


PARTS: dict[str, Callable[[list[Workload], str, int], Any]] = {
    "operation": _operation,
    "steps": _each(measures.steps),
    "bf16": _half,
    "compiled": _compiled,
    "memory": _each(lambda work, device, _: counts.memory(work, device)),
    "waits": _each(lambda work, device, _: [counts.synchronisations(work, device)]),
    "layers": _layers,
    "batches": _batches,
    "ranks": _ranks,
}

if __name__ == "__main__":
    main()
