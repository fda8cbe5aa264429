import shutil
import tempfile
from pathlib import Path

import pytest
from fake_node import Node


@pytest.fixture
def node():
    folder = Path(tempfile.mkdtemp(prefix="bourse-"))  # short: an ipc path has at most 107 bytes
    node = Node(folder)
    yield node
    node.close()
    shutil.rmtree(folder, ignore_errors=True)
