"""checkov's findings, where it is installed: exactly those that deploy/README.md gives reasons for."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
CHECKOV = shutil.which("checkov")
KNOWN = {
    "kubernetes": {
        "CKV_K8S_11",  # CPU limits should be set
        "CKV_K8S_15",  # image pull policy should be Always
        "CKV_K8S_21",  # the default namespace should not be used
        "CKV_K8S_43",  # image should use digest
    },
    "dockerfile": {"CKV_DOCKER_2"},  # HEALTHCHECK
}


@pytest.mark.skipif(CHECKOV is None, reason="no checkov on the PATH; it wants an environment of its own")
@pytest.mark.parametrize("framework", KNOWN)
def test_findings_are_the_known_ones(framework: str, tmp_path: Path) -> None:
    assert CHECKOV is not None
    shutil.copytree(DEPLOY / "kubernetes", tmp_path / "kubernetes")
    shutil.copy(DEPLOY / "images" / "Containerfile.cpu", tmp_path / "Dockerfile")  # the name it knows
    command = [CHECKOV, "--skip-download", "--framework", framework, "--output", "json", "-d", str(tmp_path)]
    # It sees to its own warnings; ours are errors.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    report = json.loads(done.stdout)
    assert report["summary"]["passed"] > 40, done.stderr
    assert {check["check_id"] for check in report["results"]["failed_checks"]} == KNOWN[framework]
