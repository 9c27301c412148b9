#!/bin/bash
#SBATCH --gpus-per-node=1 --nodes=1 --ntasks-per-node=1 --time=1:00:00 --open-mode=append
#COLOC --coloc-preset=lightning --coloc-grace=90
srun python lightning_train.py
