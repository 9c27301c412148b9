#!/bin/bash
#SBATCH --gpus-per-node=2 --nodes=1 --time=1:00:00 --open-mode=append
#COLOC --coloc-preset=torchrun --coloc-files=model.pt
torchrun --standalone --nproc-per-node=2 torchrun_train.py
