//! Which parameters there are, and which of them are secret: the plan of an artifact that its publishers signed. On the
//! coordinator's word alone, a secret could be asked for as a plain value.

use consign_common::{
    artifact::Manifest,
    digest::Sha256,
    json,
    limits::{ArtifactLimits, ENVELOPE_BYTES},
    name::{App, Version},
    plan::Plan,
    trust::{Envelope, Predicate, STATEMENT_TYPE, Statement, TrustRoot},
};
use consign_proto::v1;

use crate::cli::{
    client::{Client, unary},
    failure::{Doing, Failure, Result},
};

/// A plan, and of what.
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) version: Version,
    pub(super) plan: Plan,
}

/// Of this version, or of the newest one.
pub(super) async fn read(
    app: &App,
    version: Option<&Version>,
    root: &TrustRoot,
    client: &Client,
) -> Result<Declared> {
    let digest = match version {
        Some(version) => {
            let request = v1::ShowArtifactRequest {
                app: app.to_string(),
                version: version.to_string(),
                ..Default::default()
            };
            show(client, request).await?.digest
        }
        None => newest(app, client).await?,
    };
    let artifact =
        show(client, v1::ShowArtifactRequest { digest: digest.clone(), ..Default::default() }).await?;
    let digest: Sha256 = digest.parse().doing(|| "the artifact's digest".into())?;
    let bytes =
        if artifact.manifest.is_empty() { fetch(client, digest).await? } else { artifact.manifest.to_vec() };
    let manifest = check(app, digest, &bytes, &artifact.statements, root)?;
    let name = format!("consign.toml of {app}@{}", manifest.version);
    let plan = Plan::parse(&manifest.plan, &name).doing(|| format!("failed to read {name}"))?;
    Ok(Declared { version: manifest.version, plan })
}

async fn show(client: &Client, request: v1::ShowArtifactRequest) -> Result<v1::Artifact> {
    let answer = client.operators().show_artifact(unary(request)).await;
    Ok(answer.map_err(|status| client.failure(status))?.into_inner())
}

async fn newest(app: &App, client: &Client) -> Result<String> {
    let request = unary(v1::ListArtifactsRequest { app: app.to_string() });
    let answer = client.operators().list_artifacts(request).await.map_err(|status| client.failure(status))?;
    let newest = answer.into_inner().artifacts.into_iter().next();
    newest.map(|artifact| artifact.digest).ok_or_else(|| {
        Failure::new(format!("there is no artifact of {app}, whose plan would say which parameters it has"))
            .next("publish one first: consign artifact publish DIR")
    })
}

async fn fetch(client: &Client, digest: Sha256) -> Result<Vec<u8>> {
    let what = Some(v1::fetch_request::What::Manifest(digest.to_string()));
    let request = v1::FetchRequest { what, offset: 0 };
    let mut chunks = client
        .operators()
        .fetch_artifact(request)
        .await
        .map_err(|status| client.failure(status))?
        .into_inner();
    let most = ArtifactLimits::default().manifest_bytes;
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.message().await.map_err(|status| client.failure(status))? {
        bytes.extend_from_slice(&chunk.data);
        if bytes.len() > most {
            return Err(Failure::new(format!("the manifest is longer than {most} bytes")));
        }
    }
    Ok(bytes)
}

/// Its own bytes, published by who may publish the app.
fn check(
    app: &App,
    digest: Sha256,
    bytes: &[u8],
    statements: &[impl AsRef<[u8]>],
    root: &TrustRoot,
) -> Result<Manifest> {
    let not_to_be_believed = |why: String| {
        Failure::refused(format!("the artifact that the coordinator shows is not to be believed: {why}"))
            .next("nothing was signed")
    };
    if Sha256::of(bytes) != digest {
        return Err(not_to_be_believed(format!("its manifest does not have the digest {digest}")));
    }
    let trust = root.apps.get(app).ok_or_else(|| {
        Failure::refused(format!("the trust root does not name {app}"))
            .next(format!("its owner adds it: consign trust update --add-app {app}"))
    })?;
    let is_published = statements.iter().any(|envelope| {
        let read = || {
            let envelope = Envelope::parse(envelope.as_ref(), ENVELOPE_BYTES).ok()?;
            let payload = envelope.verified_by("the publication", &trust.publishers, &root.keys).ok()?;
            (envelope.payload_type() == STATEMENT_TYPE).then(|| Statement::parse(payload).ok()).flatten()
        };
        read().is_some_and(|statement| {
            statement.subject.sha256 == digest && matches!(statement.predicate, Predicate::Published(_))
        })
    });
    if !is_published {
        return Err(not_to_be_believed(format!("none of {app}'s publishers signed it")));
    }
    let manifest: Manifest = json::from_slice(bytes, ArtifactLimits::default().manifest_bytes)
        .doing(|| "failed to read the manifest".into())?;
    if manifest.app != *app {
        return Err(not_to_be_believed(format!("it is of {}", manifest.app)));
    }
    Ok(manifest)
}
