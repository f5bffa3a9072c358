"""Data sets that TensorFlow Datasets downloads."""

import tensorflow_datasets as tfds


def downloaded(name, split, instead):
    """Returns the splits of a data set.

    Raises:
        SystemExit: with one line that says what to do instead, if there is no
            network or a package is missing.
    """
    try:
        return tfds.load(name, split=split)
    except ModuleNotFoundError as error:
        # Its download code imports importlib_resources, no declared dependency.
        raise SystemExit(
            f"--dataset {name} needs the package {error.name}: "
            f"pip install {error.name}"
        ) from error
    except OSError as error:
        raise SystemExit(
            f"--dataset {name} cannot be downloaded ({error}): try "
            f"again with a network, or use {instead}"
        ) from error
