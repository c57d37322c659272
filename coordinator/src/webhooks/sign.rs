//! How a receiver knows that a message is ours, whole and new: the symmetric signature of Standard Webhooks
//! (https://www.standardwebhooks.com), which libraries of many languages verify.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::hmac;

/// Shorter ones could be guessed.
const LEAST_BYTES: usize = 16;
const MOST_BYTES: usize = 1024;
const PREFIX: &str = "whsec_";

#[derive(Clone)]
pub struct Secret(hmac::Key);

impl Secret {
    /// `whsec_` and base64, as Standard Webhooks writes it; anything else is taken as it is, without the newline at its
    /// end.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let bytes = match text.strip_prefix(PREFIX.as_bytes()) {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_| format!("after {PREFIX} comes base64"))?,
            None => text.to_vec(),
        };
        if bytes.len() < LEAST_BYTES || bytes.len() > MOST_BYTES {
            return Err(format!("a secret has {LEAST_BYTES} to {MOST_BYTES} bytes, not {}", bytes.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Of `id.timestamp.body`, one for each secret; the timestamp in seconds, of the try.
pub fn signature(secrets: &[Secret], id: &str, timestamp: u64, body: &str) -> String {
    let signed = format!("{id}.{timestamp}.{body}");
    let one = |secret: &Secret| {
        format!("v1,{}", STANDARD.encode(hmac::sign(&secret.0, signed.as_bytes()).as_ref()))
    };
    secrets.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_as_standard_webhooks_does() {
        // The example of the specification's libraries.
        let secret = Secret::parse(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let signed =
            signature(&[secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_that_could_be_guessed_is_refused_and_none_is_printed() {
        assert!(Secret::parse(b"short\n").unwrap_err().contains("16 to 1024"));
        assert!(Secret::parse(b"whsec_!").is_err());
        let secret = Secret::parse(b"correct horse battery staple").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}
