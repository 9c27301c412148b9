"""Hugging Face Trainer with `enable_jit_checkpoint`: on TERM it waits 3 s, saves after a step, and stops."""

import os
import time
from pathlib import Path

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

STEPS = int(os.environ.get("STEPS", "600"))
UNFINISHED = "checkpoint-is-incomplete.txt"
"""What the library leaves in a checkpoint that it did not complete."""


class Model(torch.nn.Module):
    """As small as possible."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def forward(self, x, labels=None):
        """One step of work."""
        time.sleep(0.1)
        out = self.layer(x)
        return {"loss": (out - labels).square().mean(), "logits": out}


class Journal(TrainerCallback):
    """A line a step."""

    def on_step_end(self, args, state, control, **_):
        """After each step."""
        with open("journal", "a") as file:
            file.write(f"{os.environ.get('SLURM_RESTART_COUNT', 0)} {state.global_step}\n")


def newest() -> str | None:
    """The newest complete checkpoint; None: there is none."""
    found = [p for p in Path("out").glob("checkpoint-*") if not (p / UNFINISHED).exists()]
    return str(max(found, key=lambda p: int(p.name.split("-")[1]))) if found else None


torch.manual_seed(1)
data = [{"x": torch.randn(4), "labels": torch.zeros(1)} for _ in range(1000)]
arguments = TrainingArguments(
    output_dir="out",
    max_steps=STEPS,
    per_device_train_batch_size=4,
    enable_jit_checkpoint=True,
    save_strategy="no",
    save_total_limit=2,
    report_to=[],
    disable_tqdm=True,
    logging_strategy="no",
    dataloader_pin_memory=False,
)
trainer = Trainer(Model(), arguments, train_dataset=data, callbacks=[Journal()])
trainer.train(resume_from_checkpoint=newest())
if trainer.state.global_step >= STEPS:  # it also returns when it was asked to stop
    Path("finished").write_text(str(trainer.state.global_step))
