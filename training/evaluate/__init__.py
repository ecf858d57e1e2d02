"""What a checkpoint, a model package or a running server says of labelled images, and how good that is.

All three are a `Target`: labelled pictures in, logits and embeddings out. Everything after that is one code
path, so that the numbers are the same wherever the same network runs.
"""
