"""Makes and checks envelopes with securesystemslib and in-toto-attestation, which know nothing of consign.

    envelope.py make DIR DIGEST      a test result about the digest: DIR/theirs.json, the raw key in hex DIR/theirs.hex
    envelope.py check FILE HEX ID    FILE must be signed by the raw key HEX with the id ID; prints the statement
"""

import json
import pathlib
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf import json_format
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner, SSlibKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"


def make(directory, digest):
    result = test_result_pb2.TestResult(result="PASSED", url="https://ci.example/4711", passed_tests=["a", "b"])
    result.configuration.append(ResourceDescriptor(name="tests.toml", digest={"sha256": digest}).pb)
    subject = ResourceDescriptor(name="shop-1.2.0", digest={"sha256": digest}).pb
    statement = Statement([subject], TEST_RESULT, json_format.MessageToDict(result))
    statement.validate()
    payload = json_format.MessageToJson(statement.pb).encode()

    signer = CryptoSigner.generate_ed25519()
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(signer)
    pathlib.Path(directory, "theirs.json").write_text(json.dumps(envelope.to_dict()))
    pathlib.Path(directory, "theirs.hex").write_text(signer.public_key.keyval["public"])


def check(file, raw, key_id):
    envelope = Envelope.from_dict(json.loads(pathlib.Path(file).read_text()))
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(raw))
    envelope.verify([SSlibKey.from_crypto(public, keyid=key_id)], 1)
    assert envelope.payload_type == PAYLOAD_TYPE
    proto = json_format.Parse(envelope.payload, statement_pb2.Statement())
    statement = Statement.copy_from_pb(proto)
    statement.validate()
    print(json_format.MessageToJson(statement.pb))


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]](*sys.argv[2:])
