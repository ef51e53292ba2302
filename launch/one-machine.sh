#!/bin/sh
# Trains on all GPUs of this machine. When a process dies, all restart from the last checkpoint, at most three times. The
# same command resumes after a stop.
#
#   launch/one-machine.sh --config configs/pretrain/bassl.yaml --data.shards shards --out runs/bassl
#
# PROCESSES=4 sets the number of processes (required on a machine without a GPU).

export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # otherwise restarted processes read the addresses of the dead ones
exec torchrun --standalone --nproc-per-node "${PROCESSES:-gpu}" --max-restarts 3 \
    -m bassl_fast.cli pretrain --training.checkpoint_minutes 10 "$@" --resume
