"""Recognition: classification (`classify`) and retrieval (`retrieve`) of images and clips.

    checkpoint, shards  ->  test views  ->  network  ->  mean over views  ->  accuracy, or features and R@k
The verbs `classify` and `retrieve` hold the options; the work is in `classification` and `retrieval`. Read
`classification` first; `testing` is what both share.
Imports training (the labels), checkpoints and metrics; only `cli` imports this room.
"""
