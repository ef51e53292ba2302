"""Segmentation of films into scenes: cached features, fine-tuning, evaluation.

    shards  ->  extract  ->  features  ->  finetune  ->  model  ->  evaluate
Each verb has a module of its name; the work is in `encoding`, `fitting` and `scoring`. Read `features` first.
`model` is what a checkpoint of kind "scenes" holds.
Imports training, checkpoints, heads and metrics; `scenes` and `cli` import this room.
"""
