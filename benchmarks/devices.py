"""Where a benchmark runs: its option, a clock that waits for a GPU, and what a GPU has to do."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import suppress
from statistics import mean
from threading import Event, Thread
from time import perf_counter

import torch

__all__ = ["UsageMeter", "add_device_option", "clock", "device_name", "usage"]

_DEVICES = ("cpu", "cuda")
_SECONDS_BETWEEN_SAMPLES = 0.1


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--device``, whose value is a :class:`torch.device`."""
    parser.add_argument(
        "--device",
        type=_device,
        default="cpu",
        metavar="{" + ",".join(_DEVICES) + "}",
        help="where to compute (default: cpu)",
    )


def _device(word: str) -> torch.device:
    if word not in _DEVICES:
        raise argparse.ArgumentTypeError(
            f"expected {' or '.join(_DEVICES)}, but got {word!r}; choose one of them"
        )
    if word == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError(
            "expected cpu, because PyTorch finds no CUDA device here, but got 'cuda'; leave "
            "--device out, or use a machine with a GPU and a PyTorch for it"
        )
    return torch.device(word)


def device_name(device: torch.device) -> str:
    """What a GPU is called by its maker; of the CPU ``"cpu"``."""
    return torch.cuda.get_device_name() if device.type == "cuda" else "cpu"


def clock() -> float:
    """Seconds, read once a GPU that this process has used is done with what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return perf_counter()


class UsageMeter:
    """Peak memory and utilisation of a GPU between two moments; nothing of the CPU.

    Args:
        device: The GPU is the current one of the process, if this is one at all.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def start(self) -> None:
        """Begin."""
        if self.device.type == "cuda":
            clock()
            torch.cuda.reset_peak_memory_stats()
            self._samples: list[float] = []
            self._ended = Event()
            # Threads do not share a current device.
            number = torch.cuda.current_device()
            self._thread = Thread(target=self._sample, args=(number,), daemon=True)
            self._thread.start()

    def stop(self) -> dict[str, float | str]:
        """End.

        Returns:
            On a GPU its name ``device``, ``peak_mebibytes`` of tensors and, where the package
            nvidia-ml-py is installed and the time was not too short, the mean
            ``utilisation_percent``. Nothing on the CPU.
        """
        if self.device.type != "cuda":
            return {}
        clock()
        self._ended.set()
        self._thread.join()
        found: dict[str, float | str] = {
            "device": device_name(self.device),
            "peak_mebibytes": torch.cuda.max_memory_allocated() / 2**20,
        }
        return {**found, "utilisation_percent": mean(self._samples)} if self._samples else found

    def _sample(self, number: int) -> None:
        # Whatever keeps the driver from telling, the other figures are worth having.
        with suppress(Exception):
            while not self._ended.wait(_SECONDS_BETWEEN_SAMPLES):
                self._samples.append(float(torch.cuda.utilization(number)))


def usage(
    operation: Callable[[], object], device: torch.device, least: float = 2.0
) -> dict[str, float | str]:
    """What ``operation``, repeated for ``least`` seconds, takes of a GPU; on the CPU it is not run.

    Returns:
        As :meth:`UsageMeter.stop`.
    """
    meter = UsageMeter(device)
    if device.type == "cuda":
        meter.start()
        # Not the clock that waits: the GPU shall have its next work at hand, as in a training.
        end = perf_counter() + least
        while perf_counter() < end:
            operation()
    return meter.stop()
