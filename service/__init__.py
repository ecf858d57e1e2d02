"""The server, and the command `fovea`."""

import os

# Else ONNX Runtime tells its maker of every model, with an id that it keeps in the home folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
