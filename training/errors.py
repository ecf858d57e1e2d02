"""What can go wrong in training and export, by meaning. The command line prints the message, exits with 1.

TrainingError
├── UnknownArchitecture    lists the supported ones
├── MissingExtra           an optional library isn't installed, or doesn't work here
├── DataError              the folder of images can't be trained on
│   └── BrokenImages       lists each file and why
├── SettingError           an option's value, or two options together, can't be used
├── WeightsError           a file of weights is unreadable or belongs to another network
├── TrainingDiverged       the loss is no longer a number
├── VariantRefused         a precision disagrees with fp32; the package was published without it
├── TargetError            what is to be evaluated is incomplete, or doesn't answer
├── Interrupted            a signal stopped the run, which can go on
├── RunError               a run's folder is missing, incomplete or can't be written to
└── ExportError            no package was published
    ├── ParityError        ONNX Runtime doesn't agree with PyTorch
    └── VersionTaken       that version is published already
"""


class TrainingError(Exception):
    """Any error of training's own."""


class UnknownArchitecture(TrainingError):
    """No architecture of that name."""


class MissingExtra(TrainingError):
    """An optional library isn't installed or can't be imported; names the extra that brings it."""


class DataError(TrainingError):
    """The images can't be trained on as they are."""


class BrokenImages(DataError):
    """Some files aren't images that can be decoded."""


class SettingError(TrainingError):
    """An option has a value that can't be used."""


class WeightsError(TrainingError):
    """A file of weights can't be read, or belongs to another network."""


class TrainingDiverged(TrainingError):
    """The loss became infinite or not a number."""


class Interrupted(TrainingError):
    """A signal stopped the run between two steps; it can go on from there.

    Args:
        message: says how.
        signal: its number.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


class RunError(TrainingError):
    """A run's folder is missing or incomplete, or can't be written to."""


class TargetError(TrainingError):
    """What is to be evaluated can't be: a package is incomplete, a server doesn't answer."""


class VariantRefused(TrainingError):
    """A precision failed its gate; the package was published without it."""


class ExportError(TrainingError):
    """The model package could not be made; nothing was published."""


class ParityError(ExportError):
    """The exported graph doesn't compute what the network computes."""


class VersionTaken(ExportError):
    """That version of the model is published already."""
