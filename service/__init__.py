"""The server, and the command `fovea`."""

import os

# Else ONNX Runtime tells its maker of every model, with an id that it keeps in the home folder. Training's
# own way to it, training/runtime.py, comes by here as well.
if not os.environ.get("ORT_DISABLE_TELEMETRY"):  # what is empty doesn't turn it off
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
