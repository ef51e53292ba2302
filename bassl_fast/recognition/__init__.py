"""Recognition: classification (`classify`) and retrieval (`retrieval`) of images and clips.

    checkpoint, shards  ->  test views  ->  network  ->  mean over views  ->  accuracy, or features and R@k
Read `classify` first; `testing` is what both verbs share.
Imports training (the labels), checkpoints and metrics; only `cli` imports this room.
"""
