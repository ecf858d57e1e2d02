"""`fovea import-model`: an ONNX model that somebody else made → a model package.

command     arguments → settings
settings    what was asked for
importing   the steps, on one screen
foreign     the file: read, checked, brought to a form that can be edited
tensors     which of its tensors are the logits and the embedding
recipe      what becomes of them, as decided from a run of the model
reference   what the model computes by itself
pixels      pixels → its input, in numpy; pictures to compare on
packaged    the graph that the service runs: pixels in, logits and unit-length embeddings out
batches     graphs that were made for one batch size
compare     the packaged graph against the model by itself
differs     do its answers depend on the picture
package     manifest, and how the folder comes into the repository
nodes       what editing a graph takes
"""
