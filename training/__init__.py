"""Training, and the command `fovea-train`."""

import os

# Else ONNX Runtime tells its maker of every model, with an id that it keeps in the home folder.
if not os.environ.get("ORT_DISABLE_TELEMETRY"):  # what is empty doesn't turn it off
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
