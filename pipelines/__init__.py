"""Shards to batches on the device: store, plan, samplers, view table, DALI graph, loader.

Read `plan` first, then `views`, `graph` and `loader`.
Everything random about the data is drawn here, for a whole global batch at a time, by a generator keyed by
(seed, epoch, step); the DALI graph is a pure function of picture bytes and view rows.
Needs numpy and DALI, and torch for the tensors it returns. Imports `shard_tools`; knows no network.
Use `loader.WindowLoader` for training, `loader.FilmLoader` and `shot_loader.ShotLoader` for testing.
"""
