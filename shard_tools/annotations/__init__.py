"""Labels of shots as data sets distribute them; so far MovieNet's (`movienet`).

Read `labels` first: what a label is in any data set. Labels of another data set are a module here and a source in
`sources`. Imports storage and errors only.
"""
