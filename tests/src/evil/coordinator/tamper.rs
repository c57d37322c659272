//! What can be done to an envelope without its signers' keys.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// The parts of an envelope; written again as they are.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) payload: Vec<u8>,
    pub(super) payload_type: String,
    /// Key id and signature.
    pub(super) signatures: Vec<(String, Vec<u8>)>,
}

impl Parts {
    pub(super) fn of(envelope: &[u8]) -> Self {
        let wire: Value = serde_json::from_slice(envelope).unwrap();
        let decode = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
        let signatures = wire["signatures"].as_array().unwrap().iter();
        Self {
            payload: decode(&wire["payload"]),
            payload_type: wire["payloadType"].as_str().unwrap().into(),
            signatures: signatures
                .map(|one| (one["keyid"].as_str().unwrap_or_default().to_owned(), decode(&one["sig"])))
                .collect(),
        }
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let signatures: Vec<Value> = self
            .signatures
            .iter()
            .map(|(id, bytes)| json!({ "keyid": id, "sig": STANDARD.encode(bytes) }))
            .collect();
        let payload = STANDARD.encode(&self.payload);
        let wire = json!({ "payload": payload, "payloadType": self.payload_type, "signatures": signatures });
        serde_json::to_vec(&wire).unwrap()
    }
}

pub(super) fn tampered(envelope: &[u8], change: impl FnOnce(&mut Parts)) -> Vec<u8> {
    let mut parts = Parts::of(envelope);
    change(&mut parts);
    parts.to_vec()
}

/// The order of the group that Ed25519 works in, little endian.
const L: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// The same signature in its other spelling: S + L in place of S.
pub(super) fn malleate(signature: &mut [u8]) {
    let mut carry = 0;
    for (byte, more) in signature[32..].iter_mut().zip(L) {
        let sum = u16::from(*byte) + u16::from(more) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
}
