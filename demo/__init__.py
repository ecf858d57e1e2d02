"""The whole of Fovea in one minute, on scikit-learn's handwritten digits: `make demo`."""
