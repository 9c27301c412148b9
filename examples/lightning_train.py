"""PyTorch Lightning under Slurm: on USR1 it saves `hpc_ckpt_N.ckpt` and runs `scontrol requeue`; `fit` finds the file again."""

import os
import time

import lightning as L
import torch

STEPS = int(os.environ.get("STEPS", "600"))


class Model(L.LightningModule):
    """As small as possible."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, _):
        """One step of work."""
        time.sleep(0.1)
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self):
        """Plain."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Journal(L.Callback):
    """A line a step."""

    def on_train_start(self, trainer, _):
        """Where it goes on."""
        print(f"goes on at step {trainer.global_step}", flush=True)

    def on_train_batch_end(self, trainer, *_):
        """After each step."""
        with open("journal", "a") as file:
            file.write(f"{os.environ.get('SLURM_RESTART_COUNT', 0)} {trainer.global_step}\n")


data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(10_000, 4)), batch_size=4)
trainer = L.Trainer(
    accelerator=os.environ.get("ACCELERATOR", "auto"),
    devices=1,
    max_steps=STEPS,
    default_root_dir=os.getcwd(),  # where hpc_ckpt_N.ckpt goes: a shared file system
    callbacks=[Journal()],
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
)
trainer.fit(Model(), data)
if trainer.global_step >= STEPS:
    with open("finished", "w") as file:
        file.write(str(trainer.global_step))
