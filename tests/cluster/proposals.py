"""What `retune proposal` prints for those who build with kustomize, as a program gets it."""

import os
import subprocess
import sys
from pathlib import Path


def proposal(namespace: str, kubeconfig: Path) -> str:
    """Return the output for the resource `digits`."""
    words = [sys.executable, "-m", "retune.cli.main", "proposal", "digits", "-n", namespace, "-o", "kustomize"]
    environment = os.environ | {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout
