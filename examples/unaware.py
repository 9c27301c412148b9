"""A program that knows nothing of checkpoints."""

import os
import time

for step in range(1, int(os.environ.get("STEPS", "600")) + 1):
    time.sleep(0.1)  # one step of work
    with open("journal", "a") as file:
        file.write(f"? {step}\n")
with open("finished", "w") as file:
    file.write(str(step))
