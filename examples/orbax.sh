#!/bin/bash
#SBATCH --gpus-per-node=1 --nodes=1 --time=1:00:00 --open-mode=append
#COLOC --coloc-preset=orbax --coloc-grace=90
export COORDINATOR=localhost:$((20000 + SLURM_JOB_ID % 20000))
python orbax_train.py
