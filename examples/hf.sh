#!/bin/bash
#SBATCH --gpus-per-node=1 --nodes=1 --time=1:00:00 --open-mode=append
#COLOC --coloc-preset=hf --coloc-grace=90
python hf_train.py
