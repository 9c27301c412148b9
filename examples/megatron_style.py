"""What Megatron-LM's --exit-signal-handler does: TERM sets a flag, all ranks agree after a step, save, and end with 0."""

import os
import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist

STEPS = int(os.environ.get("STEPS", "600"))
saved = Path("model.pt")
received = torch.zeros(1)
signal.signal(signal.SIGTERM, lambda *_: received.fill_(1))

rank, size = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
dist.init_process_group("gloo", rank=rank, world_size=size)
layer = torch.nn.Linear(4, 1)
step = 0
if saved.exists():
    state = torch.load(saved)
    layer.load_state_dict(state["layer"])
    step = state["step"]
dist.barrier()
print(f"rank {rank} goes on at step {step}", flush=True)
while step < STEPS:
    time.sleep(0.1)  # one step of work
    step += 1
    if rank == 0:
        with open("journal", "a") as file:
            file.write(f"{os.environ.get('SLURM_RESTART_COUNT', 0)} {step}\n")
    wanted = received.clone()
    dist.all_reduce(wanted, dist.ReduceOp.MAX)  # the signal may reach the ranks at different steps
    if wanted.item() or step == STEPS:
        if rank == 0:
            torch.save({"layer": layer.state_dict(), "step": step}, "model.new")
            Path("model.new").replace(saved)
            if step == STEPS:
                Path("finished").write_text(str(step))
        dist.barrier()
        break
dist.destroy_process_group()
