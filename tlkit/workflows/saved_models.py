"""The SavedModels in a run's model travel in its folder, each in the folder with its layer's name."""

from __future__ import annotations

import shutil

import keras

from tlkit.backbones import saved_model_layers
from tlkit.errors import FetchError
from tlkit.results import RunFolder
from tlkit.results.writing import storage_error
from tlkit.zoo.hashing import hash_of_copy


def copy_saved_models(model: keras.Model, folder: RunFolder) -> None:
    """Write the SavedModels that `model` holds into a run's folder; each once, whole or not at all.

    Raises StorageError when there is no room, FetchError when a file was changed since it was loaded.
    """
    for layer in saved_model_layers(model):
        target = folder.path / layer.name
        temporary = folder.path / f".{layer.name}"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            received = hash_of_copy(layer.opened.folder, temporary)
            if received != layer.opened.sha256:
                raise FetchError(f"The SavedModel {layer.name!r} was changed after it was loaded")
            shutil.rmtree(target, ignore_errors=True)  # of the same run, before it stopped
            temporary.rename(target)
        except OSError as error:
            raise storage_error(target, error) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
