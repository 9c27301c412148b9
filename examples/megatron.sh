#!/bin/bash
#SBATCH --gpus-per-node=1 --nodes=2 --ntasks-per-node=1 --time=1:00:00 --open-mode=append
#COLOC --coloc-preset=megatron --coloc-grace=90
# with Megatron-LM itself: srun python pretrain_gpt.py --exit-signal-handler --save "$DIR" --load "$DIR" …
export MASTER_ADDR=${MASTER_ADDR:-$(scontrol show hostnames | head -n 1)}
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
srun python megatron_style.py
