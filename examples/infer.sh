#!/bin/bash
#SBATCH --gpus-per-node=1 --nodes=1 --time=8:00:00 --open-mode=append
#COLOC --coloc-preset=program --coloc-grace=60 --coloc-interval=30 --coloc-restart=120
# a model server of your own, for example `vllm serve MODEL --port "$PORT"`, then every line of the input through it
if [[ ${SERVER:-} ]]; then
    $SERVER &
fi
python3 infer.py "${INPUT:-input.jsonl}" "${OUTPUT:-output.jsonl}" --url "${URL:-http://127.0.0.1:8000/v1/chat/completions}"
