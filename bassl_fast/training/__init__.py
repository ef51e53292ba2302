"""Training with labels or without: shards to the checkpoint of an encoder and a method.

    pretrain (the verbs)  ->  run (start to end)  ->  module (a step)  ->  checkpointing, validation, monitor
Read `pretrain` first. `options` are the keys of a config that belong to no method or encoder.
Imports checkpoints, methods, encoders, metrics and runtime, and `pipelines` for its batches.
"""
