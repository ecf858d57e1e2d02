"""Files that the server opens by itself: only regular ones, only under its folders, wherever links lead."""

import os
from pathlib import Path

import pytest

from service.errors import ConfigError, InvalidImage, InvalidRequest, NotConfigured
from service.gallery.image_roots import ImageRoots

MAX_BYTES = 1000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with photos, and a secret beside it."""
    root = tmp_path / "photos"
    (root / "2024").mkdir(parents=True)
    (root / "a.png").write_bytes(b"a")
    (root / "2024" / "ü b#?%.png").write_bytes(b"b")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "photos-of-others").mkdir()
    (tmp_path / "photos-of-others" / "a.png").write_bytes(b"secret")
    return root


@pytest.fixture
def roots(root: Path) -> ImageRoots:
    """That folder only."""
    return ImageRoots([str(root)], MAX_BYTES)


def test_paths_and_uris_under_a_root_are_read(root: Path, roots: ImageRoots) -> None:
    assert roots.read(str(root / "a.png")) == b"a"
    assert roots.read(f"file://{root}/a.png") == b"a"
    assert roots.read(f"file://localhost{root}/a.png") == b"a"
    assert roots.read((root / "2024" / "ü b#?%.png").as_uri()) == b"b"
    assert roots.read(str(root / "2024" / "ü b#?%.png")) == b"b"
    assert roots.read(f"{root}/2024/../a.png") == b"a"


def test_links_that_stay_inside_are_followed(root: Path, roots: ImageRoots) -> None:
    (root / "link.png").symlink_to("a.png")
    (root / "years").symlink_to(root / "2024")
    assert roots.read(str(root / "link.png")) == b"a"
    assert roots.read(str(root / "years" / "ü b#?%.png")) == b"b"


def test_a_root_may_be_a_link_itself(root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    roots = ImageRoots([str(tmp_path / "alias")], MAX_BYTES)
    assert roots.read(str(tmp_path / "alias" / "a.png")) == b"a"
    assert roots.read(str(root / "a.png")) == b"a"


@pytest.mark.parametrize(
    "name",
    [
        "{root}/../secret",
        "{root}/2024/../../secret",
        "file://{root}/%2e%2e/secret",
        "{root}/out",
        "{root}/outside/secret",
        "{root}-of-others/a.png",
        "/etc/passwd",
        "{root}",
        "{root}/",
    ],
)
def test_what_lies_outside_is_refused(root: Path, roots: ImageRoots, tmp_path: Path, name: str) -> None:
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "outside").symlink_to(tmp_path)
    with pytest.raises(InvalidImage, match="lies outside the server's image_roots"):
        roots.read(name.format(root=root))


@pytest.mark.parametrize(
    "uri",
    ["", "a.png", "../secret", "http://host/a.png", "file://host/a.png", "file:a.png", "s3://bucket/a.png"],
)
def test_what_is_no_file_of_this_machine_is_refused(roots: ImageRoots, uri: str) -> None:
    with pytest.raises(InvalidImage, match="expected an absolute path, or a file:// URI"):
        roots.read(uri)


def test_a_link_that_takes_a_folders_place_leads_nowhere(
    root: Path, roots: ImageRoots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at where a name leads and the opening: here at once after the look."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "ü b#?%.png").write_bytes(b"secret")
    real = os.path.realpath

    def look(path: object) -> str:
        found = real(path)  # type: ignore[call-overload] # as it was given
        (root / "2024").rename(root / "moved")
        (root / "2024").symlink_to(tmp_path / "elsewhere")
        return str(found)

    monkeypatch.setattr(os.path, "realpath", look)
    with pytest.raises(InvalidImage, match="can't be read"):
        roots.read(str(root / "2024" / "ü b#?%.png"))


def test_only_regular_files_of_a_bounded_size_are_read(root: Path, roots: ImageRoots) -> None:
    os.mkfifo(root / "pipe")  # opening it would wait for a writer
    with pytest.raises(InvalidImage, match="isn't a regular file"):
        roots.read(str(root / "pipe"))
    with pytest.raises(InvalidImage, match="isn't a regular file"):
        roots.read(str(root / "2024"))
    (root / "full.png").write_bytes(bytes(MAX_BYTES))
    assert roots.read(str(root / "full.png")) == bytes(MAX_BYTES)
    (root / "large.png").write_bytes(bytes(MAX_BYTES + 1))
    with pytest.raises(InvalidImage, match="has 1,001 bytes; expected at most 1,000"):
        roots.read(str(root / "large.png"))


@pytest.mark.parametrize("name", ["absent.png", "zero\0byte", "lone\udc80surrogate", "x" * 300])
def test_what_cannot_be_opened_is_that_images_error(root: Path, roots: ImageRoots, name: str) -> None:
    with pytest.raises(InvalidImage):
        roots.read(f"{root}/{name}")


def test_several_are_read_until_it_is_enough(root: Path, roots: ImageRoots) -> None:
    for name in "xyz":
        (root / name).write_bytes(bytes(400))
    error = InvalidRequest("no uri")
    names = [str(root / name) for name in ("x", "absent", "y", "z")]
    found = roots.read_some([error, *names], 800)
    assert found[0] is error
    assert [len(each) if isinstance(each, bytes) else type(each) for each in found[1:]] == [
        400,
        InvalidImage,
        400,
    ]
    assert len(roots.read_some([error, *names], 10_000)) == 5


def test_without_roots_it_says_which_setting(root: Path) -> None:
    with pytest.raises(NotConfigured, match="--image-root"):
        ImageRoots([], MAX_BYTES).check_configured()
    ImageRoots([str(root)], MAX_BYTES).check_configured()


@pytest.mark.parametrize("given", ["", "absent", "photos/a.png"])
def test_a_root_that_is_no_folder_stops_the_start(
    root: Path, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root.parent)
    with pytest.raises(ConfigError, match="expected folders that are there"):
        ImageRoots([given], MAX_BYTES)
