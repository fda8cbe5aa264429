"""The message classes of the worker protocol, built when this module is imported.

There is no generated code: generated code is tied to one protobuf release, and a user's functions
may need another. The classes come from the descriptors in `_descriptors`, and work with protobuf 3.20
to 7. They live in a pool of their own, so that they never collide with messages of the user's.

What the messages mean stands in `proto/bourse/v1/worker.proto`.
"""

from __future__ import annotations

import base64
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from ._descriptors import WORKER

PROTOCOL_VERSION = 1
AGENT = "bourse-python 0.1.0"

ROLE_WORKER = 1
ROLE_CLIENT = 2
ROLE_ATTACHED = 3

MODE_SYNC = 0
MODE_ASYNC = 1

VERDICT_AGAIN = 1
VERDICT_DEAD_LETTER = 2
VERDICT_DISCARD = 3

_pool = descriptor_pool.DescriptorPool()
_files = descriptor_pb2.FileDescriptorSet()
_files.ParseFromString(base64.b64decode(WORKER))
for _file in _files.file:
    _pool.AddSerializedFile(_file.SerializeToString())

if hasattr(message_factory, "GetMessageClass"):
    _class_of = message_factory.GetMessageClass
else:  # protobuf before 4.22
    _class_of = getattr(message_factory.MessageFactory(_pool), "GetPrototype")  # noqa: B009


def _message(name: str) -> Any:
    return _class_of(_pool.FindMessageTypeByName(name))


ToNode = _message("bourse.v1.ToNode")
ToWorker = _message("bourse.v1.ToWorker")
Failure = _message("bourse.v1.Failure")
Module = _message("bourse.v1.Module")
Function = _message("bourse.v1.Function")
Parameter = _message("bourse.v1.Parameter")
Write = _message("bourse.v1.Write")
ToTemplate = _message("bourse.keeper.v1.ToTemplate")
FromTemplate = _message("bourse.keeper.v1.FromTemplate")
