"""The machine: what a run runs on."""

import os
import platform
from pathlib import Path

import lightning
import torch


def machine() -> dict[str, str]:
    """What a run runs on."""
    has_gpu = torch.cuda.is_available()
    processor = str(torch.cuda.get_device_name()) if has_gpu else _processor()
    versions = {"torch": torch.__version__, "lightning": lightning.__version__}
    told = {"Python": platform.python_version(), **versions}
    return {
        "processor": processor,
        "share": "GPUs" if has_gpu else f"threads: {torch.get_num_threads()}",
        "versions": ", ".join(f"{name} {number}" for name, number in told.items()),
    }


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def gpus() -> list[str]:
    """The GPUs that can be seen, by the names that CUDA_VISIBLE_DEVICES takes."""
    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name for name in visible.split(",") if name] or [str(i) for i in range(count)]
    return names[:count]
