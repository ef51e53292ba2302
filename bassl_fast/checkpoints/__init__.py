"""Models on disk: checkpoints are read, written, migrated, imported and exported.

    file  ->  checkpoint.load (migrate, if it is old)  ->  model.load_model  ->  encoder, method, test views
Read `checkpoint` first, then `model`. `importing` and `exporting` exchange weights with other programs.
Imports methods, encoders and runtime; knows no training loop.
"""
