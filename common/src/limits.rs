//! Every maximum, with what it stops. A document or archive beyond one is refused before memory or disk is given to it.

/// What an artifact may be. One documented struct, so that a test can lower a limit and see the refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactLimits {
    /// Entries of a manifest: inode exhaustion, and memory for the list.
    pub entries: usize,
    /// Components of a path: recursion.
    pub depth: usize,
    /// Bytes of a whole path; a component may have 255.
    pub path_bytes: usize,
    /// Bytes of one file: a bomb in one entry.
    pub file_bytes: u64,
    /// Bytes of all files: a bomb in many.
    pub total_bytes: u64,
    /// Bytes of the manifest's JSON; it is held in memory.
    pub manifest_bytes: usize,
}

impl Default for ArtifactLimits {
    fn default() -> Self {
        Self {
            entries: 200_000,
            depth: 64,
            path_bytes: 4096,
            file_bytes: 8 << 30,
            total_bytes: 16 << 30,
            manifest_bytes: 64 << 20,
        }
    }
}

/// Bytes of `consign.toml`.
pub const PLAN_BYTES: usize = 256 << 10;
/// Steps of a plan.
pub const STEPS: usize = 200;
/// Bytes of a condition's text; its evaluation is bounded by this and by the manifest's size.
pub const CONDITION_BYTES: usize = 4096;
/// Bytes of a statement's envelope.
pub const ENVELOPE_BYTES: usize = 256 << 10;
/// Bytes of the values that a plan's parameters have: those of a statement, and defaults.
pub const VALUES_BYTES: usize = 1 << 20;
/// Bytes of a trust root's envelope.
pub const TRUST_ROOT_BYTES: usize = 1 << 20;
/// Bytes of a key file.
pub const KEY_FILE_BYTES: usize = 4096;
/// Bytes of a file with a certificate and its key.
pub const IDENTITY_BYTES: usize = 64 << 10;
/// Bytes of an SSHSIG blob: with an ssh-ed25519 key and our namespace it has 177.
pub const SSHSIG_BYTES: usize = 256;
/// Keys of a role: a list that people can read.
pub const ROLE_KEYS: usize = 64;
/// Signatures in an envelope: each costs a verification with the key that it names.
pub const SIGNATURES: usize = 32;
/// Verifications of an envelope's signatures that name no key, or the wrong one, with those that may have made them.
pub const HINTLESS_VERIFICATIONS: usize = 256;
/// Steps of evaluating a gate's `where` over one predicate, and bytes of text that it looks at.
pub const WHERE_COST: usize = 1 << 20;
/// Rules of a gate's `require`, and of its `rearm`.
pub const GATE_RULES: usize = 16;
/// Bytes of a plan document: a line for every step of every server.
pub const PLAN_DOCUMENT_BYTES: usize = 2 << 20;
/// Bytes of the values that are sealed to one server.
pub const SEALED_BYTES: usize = 256 << 10;
/// Statements with an order.
pub const STATEMENTS: usize = 32;
/// Bytes of all statements with an order.
pub const EVIDENCE_BYTES: usize = 3 << 19;
/// Labels of a server.
pub const LABELS: usize = 64;
/// Nesting of JSON: the parser's stack.
pub const JSON_DEPTH: usize = 16;
/// Bytes of an order's document.
pub const ORDER_BYTES: usize = 64 << 10;
/// Bytes of one journal event.
pub const EVENT_BYTES: usize = 256 << 10;
/// Bytes of data in one log record; longer output is cut into several.
pub const LOG_RECORD_BYTES: usize = 32 << 10;
/// Bytes of one message on the wire.
pub const MESSAGE_BYTES: usize = 4 << 20;
/// Bytes of data in one chunk of a transfer.
pub const CHUNK_BYTES: usize = 256 << 10;
/// How far an ordering statement may lie ahead of the agent's clock (design section 3).
pub const FUTURE_MS: u64 = 10 * 60 * 1000;
/// How far agent's and coordinator's clocks may lie apart before no deploy order is sent.
pub const CLOCK_SKEW_MS: u64 = 5 * 60 * 1000;
/// Secrets shorter than this would mask half of every log.
pub const SECRET_BYTES_MIN: usize = 6;
/// Bytes of an audit entry.
pub const AUDIT_ENTRY_BYTES: usize = 64 << 10;
/// Bytes of a receipt's envelope: a line for every step.
pub const RECEIPT_BYTES: usize = 256 << 10;
/// Bytes of a secret's value.
pub const SECRET_BYTES: usize = 16 << 10;
/// Bytes of one secret sealed to one server: the value as JSON may escape it, and what age adds.
pub const SEALED_SECRET_BYTES: usize = 128 << 10;

/// An order goes in one message, with all that may go beside it; what the message itself adds is less than the rest.
const _: () = assert!(
    ORDER_BYTES + EVIDENCE_BYTES + PLAN_DOCUMENT_BYTES + SEALED_BYTES + (128 << 10) <= MESSAGE_BYTES,
    "an order with all that it may carry is larger than a message may be"
);
