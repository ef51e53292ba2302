"""Learning: encoders, pretext methods, training, evaluation, features, report and the command line.

Pictures come from `pipelines` as tensors; what is learned leaves as a checkpoint that carries its recipe.
Needs torch and Lightning. A new method or encoder is a file under `methods/` or `encoders/` and a config.
Door: the verbs of `cli` (`bassl-fast --help`); from Python, `pretrain.pretrain` and its neighbours.
"""
