"""Batching policies on the same arrivals, in virtual time."""
