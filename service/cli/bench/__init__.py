"""`fovea bench`: a load generator for a Fovea server."""
