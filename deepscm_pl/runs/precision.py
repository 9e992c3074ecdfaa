"""A trainer whose precision can be ``auto``: the fastest safe one of the processor or GPU."""

from __future__ import annotations

import os
from typing import Any, Literal

import pytorch_lightning as pl
import torch

__all__ = ["PrecisionTrainer", "automatic_precision"]

Precision = Literal[
    "auto",
    "transformer-engine",
    "transformer-engine-float16",
    "16-true",
    "16-mixed",
    "bf16-true",
    "bf16-mixed",
    "32-true",
    "64-true",
    "64",
    "32",
    "16",
    "bf16",
    64,
    32,
    16,
]

_FEATURES = ("avx512_bf16", "amx_bf16", "avx10_2", "arm_bf16", "arm_sve_bf16", "bf16")
_INSTRUCTION_SET_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_WITH_BFLOAT16 = ("ALL", "DEFAULT", "BF16", "FP16", "AMX", "AVX10")
"""Parts of the names of oneDNN's instruction sets that include bfloat16."""


class PrecisionTrainer(pl.Trainer):
    """A trainer that chooses the precision of its device.

    Args:
        precision: As in Lightning, or ``auto``: mixed precision with bfloat16 (``bf16-mixed``)
            where the device computes in bfloat16, ``32-true`` elsewhere.
    """

    def __init__(self, *args: Any, precision: Precision | None = None, **kwargs: Any) -> None:
        is_automatic = precision == "auto"
        if is_automatic:
            precision = automatic_precision(kwargs.get("accelerator", "auto"))
        super().__init__(*args, precision=precision, **kwargs)  # type: ignore[arg-type]
        if is_automatic and self.is_global_zero:
            print(f"trainer.precision: auto, which is {precision} on this machine")


def automatic_precision(accelerator: object = "auto") -> Literal["bf16-mixed", "32-true"]:
    """Choose between bfloat16 and float32 for an accelerator of a trainer."""
    if accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available():
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_bfloat16 = accelerator in ("auto", "cpu") and _cpu_has_bfloat16()
    return "bf16-mixed" if has_bfloat16 else "32-true"


def _cpu_has_bfloat16() -> bool:
    """Whether the processor has bfloat16 instructions that the libraries may use."""
    limits = [os.environ.get(name, "ALL").upper() for name in _INSTRUCTION_SET_LIMITS]
    if not all(any(part in limit for part in _WITH_BFLOAT16) for limit in limits):
        return False
    if os.environ.get("ATEN_CPU_CAPABILITY", "") in ("default", "avx2"):
        return False
    features = torch.cpu.get_capabilities()
    return any(features.get(name, False) for name in _FEATURES)
