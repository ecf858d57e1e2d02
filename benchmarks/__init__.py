"""Every figure that Fovea claims: one script each, run alone on the machine."""
