"""What `kubectl kustomize` makes of an overlay, for the fields that ours use; any other is an error."""

import copy
from pathlib import Path
from typing import Any

import yaml

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
BASE, OVERLAYS = KUBERNETES / "base", KUBERNETES / "overlays"

Resource = dict[str, Any]


def rendered(folder: Path) -> dict[str, Resource]:
    """Resources by "kind/name"."""
    found: dict[str, Resource] = {}
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
    fields = {"apiVersion", "kind", "resources", "patches", "images"}
    assert kustomization.keys() <= fields, kustomization.keys() - fields
    for name in kustomization["resources"]:
        path = folder / name
        if path.is_dir():
            added = rendered(path)
        else:
            documents = yaml.safe_load_all(path.read_text("utf-8"))
            added = {f"{one['kind']}/{one['metadata']['name']}": one for one in documents}
        assert not found.keys() & added.keys()
        found |= added
    for patch in kustomization.get("patches", []):
        _apply(found, patch)
    for image in kustomization.get("images", []):
        assert image.keys() == {"name", "newTag"}
        containers = found["Deployment/fovea"]["spec"]["template"]["spec"]["containers"]
        [container] = [one for one in containers if one["image"].rpartition(":")[0] == image["name"]]
        container["image"] = f"{image['name']}:{image['newTag']}"
    return found


def _apply(found: dict[str, Resource], patch: dict[str, Any]) -> None:
    change = yaml.safe_load(patch["patch"])
    if isinstance(change, dict):
        assert change.keys() == {"$patch", "apiVersion", "kind", "metadata"}
        assert change["$patch"] == "delete"
        del found[f"{change['kind']}/{change['metadata']['name']}"]
        return
    assert patch["target"].keys() == {"kind", "name"}
    target = found[f"{patch['target']['kind']}/{patch['target']['name']}"]
    for operation in change:
        _do(target, **operation)


def _do(target: Any, op: str, path: str, value: Any = None) -> None:
    """One operation of a JSON patch (RFC 6902)."""
    assert path.startswith("/")
    assert "~" not in path
    *parents, last = path[1:].split("/")
    for step in parents:
        target = target[int(step) if isinstance(target, list) else step]
    place: Any = last
    if isinstance(target, list):
        place = len(target) if last == "-" else int(last)
    match op:
        case "test":
            assert target[place] == value
        case "remove":
            del target[place]
        case "replace":
            assert target[place] != value, f"{path} is {value} already"
            target[place] = copy.deepcopy(value)
        case "add" if isinstance(target, list):
            target.insert(place, copy.deepcopy(value))
        case "add":
            assert place not in target, f"{path} is there already, and would be lost"
            target[place] = copy.deepcopy(value)
        case _:
            raise AssertionError(f"unknown operation {op}")
