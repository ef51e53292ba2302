"""Labels of shots as data sets distribute them; so far MovieNet's (`movienet`).

Imports storage and errors only. Labels of another data set are a module here and a source in `sources`.
"""
