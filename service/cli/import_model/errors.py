"""What can go wrong while a model is imported."""

from service.errors import FoveaError


class ImportRefused(FoveaError):
    """The model can't be packaged as it is, or as was asked; nothing was published."""
