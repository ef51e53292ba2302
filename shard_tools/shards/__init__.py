"""The shard format: its bytes (`format`), a set opened for reading (`index`), one shard of it (`shard`).

Read `format` first. `webdataset` reads shards with the package of that name.
Imports storage and errors; knows no source and no video.
"""
