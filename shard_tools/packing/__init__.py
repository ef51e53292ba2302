"""Write shards from a source (`pack`), check every byte of them (`verify`), fix what is broken (`repair`)."""
