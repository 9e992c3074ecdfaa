"""One process works, the others wait."""

from __future__ import annotations

import time
from datetime import timedelta

import torch
from torch import distributed

from deepscm_pl.runs.termination import others_wait


def test_others_wait_longer_than_processes_do_elsewhere(tmp_path):
    torch.multiprocessing.start_processes(work_for_long, (tmp_path,), 2, start_method="fork")
    assert (tmp_path / "1").read_text() == "done"


def work_for_long(rank, folder):
    distributed.init_process_group(
        "gloo",
        init_method=(folder / "store").as_uri(),
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=2),
    )
    with others_wait():
        if rank == 0:
            time.sleep(4)
            (folder / "0").write_text("done")
    if rank == 1:
        (folder / "1").write_text((folder / "0").read_text())
    distributed.destroy_process_group()


def test_one_process_waits_for_nobody():
    with others_wait():
        pass
