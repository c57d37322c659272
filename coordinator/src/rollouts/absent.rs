//! What servers would say that cannot be asked: the same decision, made here from what is known of them. What only their
//! own root knows (which apps, users and units it allows) nobody knows here.

use std::{collections::BTreeMap, sync::Arc};

use consign_common::{
    artifact::Manifest,
    digest::Sha256,
    json,
    limits::ArtifactLimits,
    name::{App, ServerName},
    plan::{Kind, Plan},
    time::UnixMs,
    trust::{
        Allowance, ORDER_FORMAT, Order, OrderKind, OrderingNumber, Privilege, Refusal, ServersWord,
        TrustRoot,
        authorize::{Documents, Host, Installed, Memory, preview},
    },
};

use super::{
    admission::NotStarted,
    controller::Controller,
    orders::fresh_id,
    preview::{Foretold, Preview, PreviewRequest},
    rows::Again,
};
use crate::{config, fleet::Server};

/// A preview, and our own word for those who gave none. `None`: it would be taken.
#[derive(Debug)]
pub struct Checked {
    pub preview: Preview,
    pub absent: BTreeMap<ServerName, Option<Refusal>>,
}

impl Controller {
    pub async fn check(self: &Arc<Self>, request: PreviewRequest) -> Result<Checked, NotStarted> {
        let PreviewRequest { app, environment, again, .. } = request.clone();
        let preview = self.preview(request).await?;
        let root = self.trust_roots.newest();
        let rollout = fresh_id()?;
        let manifest = self.repository.manifest(preview.artifact).await?;
        let statements = self.evidence(&environment, preview.artifact, &rollout).await?;
        let in_force = self.in_force(&app, &environment).await?;
        let statements = config::among(in_force.as_ref(), statements);
        let mut absent = BTreeMap::new();
        for server in self.registry.list().await? {
            match preview.servers.get(&server.name) {
                Some(Foretold::NotConnected | Foretold::Silent) => {}
                Some(Foretold::Answered(_) | Foretold::Disabled { .. }) | None => continue,
            }
            let order = Order {
                format: ORDER_FORMAT.to_owned(),
                id: fresh_id()?,
                coordinator: self.coordinator.clone(),
                server: server.name.clone(),
                environment: environment.clone(),
                app: app.clone(),
                rollout: rollout.clone(),
                deployment: fresh_id()?,
                term: u64::MAX,
                issued: preview.made,
                order: OrderKind::deploy(preview.artifact, again == Again::Force),
            };
            let word = expected(&server, &order, &manifest, &statements, &root, self.clock.now());
            absent.insert(server.name, word.err());
        }
        Ok(Checked { preview, absent })
    }
}

/// What this server will say, if its root allows what the plan asks for. Pure.
fn expected(
    server: &Server,
    order: &Order,
    manifest: &[u8],
    statements: &[Vec<u8>],
    root: &TrustRoot,
    now: UnixMs,
) -> Result<(), Refusal> {
    let parsed: Manifest = json::from_slice(manifest, ArtifactLimits::default().manifest_bytes)
        .map_err(|error| Refusal::Malformed { what: "manifest", why: error.to_string() })?;
    let word = ServersWord {
        server: server.name.clone(),
        environment: server.environment.clone(),
        labels: server.report.labels.clone().into_iter().collect(),
        allowances: vec![all_that_is_asked(&parsed)?],
    };
    // Of a server that never said what it is, the artifact's own.
    let own = format!("{}-{}", server.report.os, server.report.arch);
    let platform = match &parsed.platform {
        Some(platform) if server.report.os.is_empty() => platform.to_string(),
        Some(_) | None => own,
    };
    let host = Host { word: &word, privilege: &Privilege::Root, platform: &platform };
    let documents = Documents { manifest, statements, plan: None };
    let memory = memory(server, &parsed.app);
    let foreseen = preview(order, &order.coordinator, documents, root, host, &memory, now)?;
    foreseen.held.map_or(Ok(()), Err)
}

/// What its agent said last that it remembers of the app.
fn memory(server: &Server, app: &App) -> Memory {
    let Some(report) = server.apps.get(app) else { return Memory::default() };
    let installed = |manifest: Sha256, version: &str| {
        Some(Installed {
            manifest,
            version: version.parse().ok()?,
            published: OrderingNumber::default(),
            release: String::new(),
            config: None,
        })
    };
    Memory {
        highest: Some(report.highest).filter(|highest| *highest > OrderingNumber::default()),
        good: report.good.and_then(|good| installed(good, &report.good_version)),
        ..Memory::default()
    }
}

/// A word that allows all that the plan asks for.
pub fn all_that_is_asked(manifest: &Manifest) -> Result<Allowance, Refusal> {
    let plan = Plan::parse(&manifest.plan, "consign.toml")
        .map_err(|error| Refusal::PlanInvalid { why: error.to_string() })?;
    let (mut users, mut units) = (Vec::new(), Vec::new());
    for step in plan.steps {
        match step.kind {
            Kind::Run(_) | Kind::Shell(_) => users.push(step.user.unwrap_or_else(|| "root".to_owned())),
            Kind::Systemd(action) => units.push(action.unit),
            Kind::Activate | Kind::Http(_) | Kind::Tcp(_) | Kind::Sleep(_) => {}
        }
    }
    Ok(Allowance { app: manifest.app.clone(), users, units })
}
