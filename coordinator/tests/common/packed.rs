//! Small artifacts, and their way to the coordinator.

use std::fs;

use consign_common::{
    artifact::{Identity, Options, read_directory},
    digest::Sha256,
    limits::ArtifactLimits,
    time::{Clock as _, SystemClock, UnixMs},
    trust::{Envelope, OrderingNumber, Predicate, Published, STATEMENT_TYPE, SigningKey, Statement, Subject},
};
use consign_proto::v1::{
    BeginPublishRequest, BeginPublishResponse, UploadChunk, UploadResponse, operators_client::OperatorsClient,
};
use tonic::{Status, transport::Channel};

/// An artifact as a publisher's machine has it.
pub struct Packed {
    pub manifest: Vec<u8>,
    pub pack: Vec<u8>,
}

pub fn pack(version: &str, content: &[u8]) -> Packed {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::write(tree.join("bin/app"), content).unwrap();
    fs::write(tree.join("consign.toml"), "app = \"shop\"\n[[step]]\nname = \"go\"\nactivate = true\n")
        .unwrap();
    let limits = ArtifactLimits::default();
    let options = Options { plan: None, strip_components: 0, limits: &limits, spool: dir.path() };
    let identity = Identity { version: version.parse().unwrap(), platform: None };
    let mut built = read_directory(&tree, &identity, &options).unwrap();
    let mut pack = Vec::new();
    built.write_pack(&mut pack).unwrap();
    Packed { manifest: built.manifest.to_bytes(), pack }
}

pub fn statement(packed: &Packed, version: &str, ms: u64, key: &SigningKey) -> Vec<u8> {
    let statement = Statement {
        subject: Subject { name: "shop".into(), sha256: Sha256::of(&packed.manifest) },
        predicate: Predicate::Published(Published {
            app: "shop".parse().unwrap(),
            version: version.parse().unwrap(),
            platform: None,
            number: OrderingNumber { epoch: 1, ms: UnixMs(ms) },
        }),
    };
    Envelope::sign(STATEMENT_TYPE, statement.to_payload(), &[key]).to_vec()
}

pub async fn begin(
    client: &mut OperatorsClient<Channel>,
    packed: &Packed,
    statement: Vec<u8>,
) -> Result<BeginPublishResponse, Status> {
    let request = BeginPublishRequest {
        manifest: packed.manifest.clone().into(),
        statement: statement.into(),
        pack_length: packed.pack.len() as u64,
        pack_sha256: Sha256::of(&packed.pack).as_bytes().to_vec().into(),
    };
    client.begin_publish(request).await.map(tonic::Response::into_inner)
}

pub async fn upload(
    client: &mut OperatorsClient<Channel>,
    begun: &BeginPublishResponse,
    bytes: &[u8],
) -> Result<UploadResponse, Status> {
    let mut offset = begun.offset;
    let mut chunks = Vec::new();
    for data in bytes.chunks(40) {
        chunks.push(UploadChunk { upload: begun.upload.clone(), offset, data: data.to_vec().into() });
        offset += data.len() as u64;
    }
    client.upload_pack(tokio_stream::iter(chunks)).await.map(tonic::Response::into_inner)
}

pub fn now() -> u64 {
    SystemClock.now().0
}
