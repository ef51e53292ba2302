"""The shard format: its bytes (`format`), a set opened for reading (`index`), one shard of it (`shard`)."""
