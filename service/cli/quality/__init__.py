"""`fovea index evaluate`, `duplicates` and `augment`: how good a collection is, and how it gets better."""
