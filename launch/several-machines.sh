#!/bin/sh
# Trains on all GPUs of several machines. Give the same command on each of them; HEAD is the name or address at which all
# others reach one of them. --data.shards and --out must be the same places everywhere.
#
#   NODES=2 HEAD=10.0.0.1 launch/several-machines.sh --config configs/pretrain/bassl.yaml --data.shards shards --out runs/bassl
#
# NODES=2:4 starts with two machines and takes up to four: whenever one leaves or joins, all restart from the last
# checkpoint. The global batch must be divisible by every possible number of processes.
# PORT (29500) must be free on HEAD. INTERFACE=eth1 names the network to use if a machine has several.

: "${NODES:?number of machines}" "${HEAD:?machine that all others reach}"
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # otherwise restarted processes read the addresses of the dead ones
[ -z "$INTERFACE" ] || export NCCL_SOCKET_IFNAME="$INTERFACE" GLOO_SOCKET_IFNAME="$INTERFACE"
exec torchrun --nnodes "$NODES" --nproc-per-node "${PROCESSES:-gpu}" --max-restarts 3 \
    --rdzv-backend c10d --rdzv-id "${RUN:-bassl-fast}" --rdzv-endpoint "$HEAD:${PORT:-29500}" \
    -m bassl_fast.cli pretrain --training.checkpoint_minutes 10 "$@" --resume
