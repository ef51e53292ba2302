"""Metrics: pure functions from predictions and labels to percent.

Read `scenes` first: its table `METRICS` is what `evaluate` prints. `protocols` lists what papers on other data sets
print (`grouping`, `tolerance`). The other modules score classifiers (`accuracy`), retrieval (`retrieval`) and the
features of shots (`neighbours`).
Imports no other room of `bassl_fast`.
"""
