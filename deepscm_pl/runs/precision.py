"""A trainer whose precision can be ``auto``: what the processor or the GPU computes in."""

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
_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_WITH_BFLOAT16 = ("ALL", "DEFAULT", "BF16", "FP16", "AMX", "AVX10")
"""In the names of the instruction sets of oneDNN that include bfloat16."""


class PrecisionTrainer(pl.Trainer):
    """A trainer that chooses the precision of its device.

    Args:
        precision: As in Lightning, or ``auto``: bfloat16 for what is safe in it (``bf16-mixed``)
            where the device computes in bfloat16, ``32-true`` elsewhere.
    """

    def __init__(self, *args: Any, precision: Precision | None = None, **kwargs: Any) -> None:
        if precision == "auto":
            chosen = automatic_precision(kwargs.get("accelerator", "auto"))
            super().__init__(*args, precision=chosen, **kwargs)
            if self.is_global_zero:
                print(f"trainer.precision: auto, which is {chosen} on this machine")
        else:
            super().__init__(*args, precision=precision, **kwargs)


def automatic_precision(accelerator: object = "auto") -> Literal["bf16-mixed", "32-true"]:
    """Choose between bfloat16 and float32.

    Args:
        accelerator: As of the trainer.
    """
    is_gpu = accelerator in ("gpu", "cuda") or accelerator == "auto"
    if is_gpu and torch.cuda.is_available():
        computes = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        computes = accelerator in ("auto", "cpu") and _cpu_computes_in_bfloat16()
    return "bf16-mixed" if computes else "32-true"


def _cpu_computes_in_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16, and the libraries may use them."""
    for name in _LIMITS:
        limit = os.environ.get(name, "ALL").upper()
        if not any(part in limit for part in _WITH_BFLOAT16):
            return False
    if os.environ.get("ATEN_CPU_CAPABILITY", "") in ("default", "avx2"):
        return False
    features = torch.cpu.get_capabilities()
    return any(features.get(name, False) for name in _FEATURES)
