"""submitit: a callable with a checkpoint() method. Run it where coloc-sbatch is on PATH under the name sbatch.

On USR2 submitit calls checkpoint(), stores what that returns, and runs `scontrol requeue`.
"""

import os
import signal
import time

import submitit


class Count:
    """The work. What is in `self` when the signal comes is what is stored."""

    def __init__(self, steps: int) -> None:
        self.steps, self.step = steps, 0

    def __call__(self) -> int:
        """Do what is left."""
        while self.step < self.steps:
            time.sleep(0.1)  # one step of work
            # submitit calls checkpoint() from within its signal handler: a step is counted whole or not at all
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
            with open("journal", "a") as file:
                file.write(f"{os.environ.get('SLURM_RESTART_COUNT', 0)} {self.step + 1}\n")
            self.step += 1
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
        with open("finished", "w") as file:
            file.write(str(self.step))
        return self.step

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Called when coloc (or Slurm, before the time limit) wants the GPUs."""
        return submitit.helpers.DelayedSubmission(self)


if __name__ == "__main__":
    executor = submitit.SlurmExecutor("log", max_num_timeout=100)
    executor.update_parameters(nodes=1, time=60, gpus_per_node=1, job_name="submitit", signal_delay_s=90)
    print(executor.submit(Count(int(os.environ.get("STEPS", "600")))).job_id)
