"""JAX with Orbax: jax.distributed notices TERM, `reached_preemption` tells at which step all processes save."""

import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

STEPS = int(os.environ.get("STEPS", "600"))
jax.distributed.initialize(
    os.environ["COORDINATOR"],
    int(os.environ.get("SLURM_NTASKS", "1")),
    int(os.environ.get("SLURM_PROCID", "0")),
)
options = ocp.CheckpointManagerOptions(save_interval_steps=10**9, max_to_keep=2)
manager = ocp.CheckpointManager(Path("checkpoints").absolute(), options=options)
state = {"step": jnp.zeros((), int), "weights": jnp.zeros(4)}
last = manager.latest_step()
if last is not None:
    state = manager.restore(last, args=ocp.args.StandardRestore(state))
step = int(state["step"])
print(f"goes on at step {step}", flush=True)
while step < STEPS:
    time.sleep(0.1)  # one step of work
    step += 1
    state = {"step": jnp.asarray(step), "weights": state["weights"] + 1}
    with open("journal", "a") as file:
        file.write(f"{os.environ.get('SLURM_RESTART_COUNT', 0)} {step}\n")
    if manager.reached_preemption(step):
        manager.save(step, args=ocp.args.StandardSave(state), force=True)
        manager.wait_until_finished()
        break
else:
    Path("finished").write_text(str(step))
manager.close()
