"""`fovea import-model`: an ONNX model that somebody else made → a model package.

command     arguments → settings
importing   the steps, on one screen
foreign     the file: read, checked, brought to a form that can be edited
tensors     which of its tensors are the logits and the embedding
pixels      pixels → its input, in numpy; pictures to compare on
reference   what it computes by itself
packaged    the graph that the service runs: pixels in, logits and unit-length embeddings out
batches     graphs made for one picture at a time
package     manifest, metadata, and how the folder comes into the repository
"""
