//! An artifact as far as it can be known without believing the coordinator: its bytes, hashed here, and what people whom
//! our own trust root names have signed about exactly those bytes.

use std::collections::BTreeSet;

use consign_common::{
    artifact::Manifest,
    digest::Sha256,
    limits::{ArtifactLimits, ENVELOPE_BYTES, STATEMENTS},
    name::{App, Environment, Platform, Version},
    time::UnixMs,
    trust::{
        Envelope, RoleKeys, STATEMENT_TYPE, Statement, TrustRoot,
        evidence::{self, Evidence},
    },
};
use consign_proto::v1::{self, fetch_request::What};

use crate::cli::{
    client::{Client, unary},
    failure::{Failure, Result},
};

/// An artifact and what was signed about it.
#[derive(Debug)]
pub(crate) struct Papers {
    pub(crate) digest: Sha256,
    pub(crate) manifest: Manifest,
    /// As the coordinator sent them.
    pub(crate) statements: Vec<v1::Statement>,
    /// The config that is in force where it is approved for, as the coordinator sent it.
    pub(crate) config: Option<Vec<u8>>,
    /// The newest publication that counts, and who signed it.
    pub(crate) published: UnixMs,
    pub(crate) publishers: Vec<String>,
}

/// The artifact of this name, if what the coordinator gives for it is what its publishers signed under that name.
pub(crate) async fn fetch(
    client: &Client,
    root: &TrustRoot,
    (app, version): (&App, &Version),
    platform: Option<&Platform>,
) -> Result<Papers> {
    let request = v1::ShowArtifactRequest {
        app: app.to_string(),
        version: version.to_string(),
        digest: String::new(),
        platform: platform.map(ToString::to_string).unwrap_or_default(),
    };
    let papers = get(client, root, request).await?;
    let Manifest { app: own_app, version: own_version, .. } = &papers.manifest;
    if (own_app, own_version) != (app, version) {
        return Err(lie(&format!("what it gives for {app}@{version} is {own_app}@{own_version}")));
    }
    Ok(papers)
}

/// The artifact of this digest.
pub(crate) async fn fetch_exactly(client: &Client, root: &TrustRoot, digest: Sha256) -> Result<Papers> {
    let request = v1::ShowArtifactRequest { digest: digest.to_string(), ..Default::default() };
    let papers = get(client, root, request).await?;
    if papers.digest != digest {
        return Err(lie(&format!(
            "what it gives for {} has the digest {}",
            digest.short(),
            papers.digest.short()
        )));
    }
    Ok(papers)
}

async fn get(client: &Client, root: &TrustRoot, request: v1::ShowArtifactRequest) -> Result<Papers> {
    let answer =
        client.operators().show_artifact(unary(request)).await.map_err(|status| client.failure(status))?;
    let artifact = answer.into_inner();
    let told: Sha256 = artifact.digest.parse().map_err(|_| lie("the artifact's digest is none"))?;
    let bytes = match artifact.manifest.is_empty() {
        false => artifact.manifest.to_vec(),
        true => fetch_manifest(client, told).await?,
    };
    let request = unary(v1::ListStatementsRequest { digest: artifact.digest });
    let answer =
        client.operators().list_statements(request).await.map_err(|status| client.failure(status))?;
    prove(bytes, told, answer.into_inner().statements, root)
}

/// One that is too large for a message.
async fn fetch_manifest(client: &Client, digest: Sha256) -> Result<Vec<u8>> {
    let most = ArtifactLimits::default().manifest_bytes;
    let request = v1::FetchRequest { what: Some(What::Manifest(digest.to_string())), offset: 0 };
    let answer = client.operators().fetch_artifact(request).await.map_err(|status| client.failure(status))?;
    let mut chunks = answer.into_inner();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.message().await.map_err(|status| client.failure(status))? {
        bytes.extend_from_slice(&chunk.data);
        if bytes.len() > most {
            return Err(lie(&format!("the manifest has more than {most} bytes")));
        }
    }
    Ok(bytes)
}

/// Pure: what the coordinator sent, against what is signed.
pub(super) fn prove(
    bytes: Vec<u8>,
    told: Sha256,
    statements: Vec<v1::Statement>,
    root: &TrustRoot,
) -> Result<Papers> {
    let digest = Sha256::of(&bytes);
    if digest != told {
        return Err(lie(&format!(
            "the manifest that it sent has the digest {}, and it calls it {}",
            digest.short(),
            told.short()
        )));
    }
    let manifest = Manifest::parse(&bytes, &ArtifactLimits::default())
        .map_err(|error| lie(&format!("the manifest that it sent is none: {error}")))?;
    let name = format!("{}@{}", manifest.app, manifest.version);
    let trust = root
        .apps
        .get(&manifest.app)
        .ok_or_else(|| Failure::refused(format!("the trust root does not name the app {}", manifest.app)))?;
    // The environment matters for gates only; publications are the same everywhere.
    let all = envelopes(&statements);
    let read = read_all(&all, root, &manifest.app, None);
    let published = evidence::publications(&read, trust, digest, &manifest).map_err(|refusal| {
        lie(&format!("nobody whom the trust root lets publish {} has signed {name}: {refusal}", manifest.app))
    })?;
    let published = published.first().map(|newest| newest.ms).unwrap_or_default();
    let publishers = evidence::publishers(&read, digest).into_iter().map(ToString::to_string).collect();
    Ok(Papers { digest, manifest, statements, config: None, published, publishers })
}

impl Papers {
    /// With the config that it would run with there: an approval covers it.
    pub(crate) async fn configured(self, client: &Client, environment: &Environment) -> Result<Self> {
        let request = unary(v1::ShowConfigRequest {
            app: self.manifest.app.to_string(),
            environment: environment.to_string(),
            sequence: 0,
        });
        let answer =
            client.operators().show_config(request).await.map_err(|status| client.failure(status))?;
        let config = answer.into_inner().config.map(|config| config.envelope.to_vec());
        Ok(Self { config, ..self })
    }

    pub(crate) fn envelopes(&self) -> Vec<Vec<u8>> {
        // First: of more than go with one order, it is not the one that is left out.
        self.config.iter().cloned().chain(envelopes(&self.statements)).collect()
    }

    /// What was signed, as a server of this environment reads it.
    pub(crate) fn evidence(&self, root: &TrustRoot, environment: &Environment) -> Vec<Evidence> {
        read_all(&self.envelopes(), root, &self.manifest.app, Some(environment))
    }

    /// And one more statement.
    pub(crate) fn evidence_with(
        &self,
        envelope: &[u8],
        root: &TrustRoot,
        environment: &Environment,
    ) -> Vec<Evidence> {
        let mut all = self.envelopes();
        all.insert(0, envelope.to_vec());
        read_all(&all, root, &self.manifest.app, Some(environment))
    }

    /// Who, of all whom the trust root knows by a key, has signed one statement, and what it says. `None`: nobody.
    pub(crate) fn read_one(told: &v1::Statement, root: &TrustRoot) -> Option<(Vec<String>, Statement)> {
        let envelope = Envelope::parse(&told.envelope, ENVELOPE_BYTES).ok()?;
        let everybody = RoleKeys { keys: root.keys.keys().copied().collect(), threshold: 1 };
        let signers = envelope.signers(&everybody, &root.keys);
        if signers.is_empty() || envelope.payload_type() != STATEMENT_TYPE {
            return None;
        }
        let statement = Statement::parse(envelope.payload()).ok()?;
        Some((signers.into_values().map(|key| key.owner.to_string()).collect(), statement))
    }

    pub(crate) fn name(&self) -> String {
        format!("{}@{}", self.manifest.app, self.manifest.version)
    }
}

/// What [`Evidence::statement`] of this envelope is.
pub(super) fn statement_of(envelope: &[u8]) -> Sha256 {
    Envelope::parse(envelope, ENVELOPE_BYTES)
        .map_or_else(|_| Sha256::of(envelope), |envelope| Sha256::of(envelope.payload()))
}

fn envelopes(statements: &[v1::Statement]) -> Vec<Vec<u8>> {
    let mut seen = BTreeSet::new();
    let all = statements.iter().map(|statement| statement.envelope.to_vec());
    all.filter(|envelope| seen.insert(Sha256::of(envelope))).collect()
}

/// More than go with one order; one that cannot be read at all says nothing.
fn read_all(
    envelopes: &[Vec<u8>],
    root: &TrustRoot,
    app: &App,
    environment: Option<&Environment>,
) -> Vec<Evidence> {
    let nowhere = || "nowhere".parse().ok();
    let Some(environment) = environment.cloned().or_else(nowhere) else { return Vec::new() };
    let one = |envelope: &Vec<u8>| {
        evidence::read(std::slice::from_ref(envelope), root, app, &environment).unwrap_or_default()
    };
    envelopes.iter().take(STATEMENTS * 8).flat_map(one).collect()
}

/// What the coordinator gives is not what was signed.
fn lie(what: &str) -> Failure {
    Failure::refused(format!("the coordinator is not to be believed: {what}")).next(
        "nothing was signed; do not go on before you know why: compare with the machine that published it",
    )
}
