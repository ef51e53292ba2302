"""Labels of shots as data sets distribute them: MovieNet's (`movienet`, `label318`), BBC's and OVSD's
(`scene_lists`).

Read `labels` first: what a label is in any data set. Labels of another data set are a module here and a source in
`sources`. Imports storage and errors only.
"""
