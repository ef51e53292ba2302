#!/bin/sh
# Trains on all GPUs of this machine. A process that dies stops the others, and all start again from the last checkpoint,
# three times at most. The same command goes on after a stop.
#
#   launch/one-machine.sh --config configs/pretrain/bassl.yaml --data.shards shards --out runs/bassl
#
# PROCESSES=4 takes so many (on a machine without a GPU it must be given).

export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # or the new processes would meet the addresses of the dead
exec torchrun --standalone --nproc-per-node "${PROCESSES:-gpu}" --max-restarts 3 \
    -m bassl_fast.cli pretrain --training.checkpoint_minutes 10 "$@" --resume
