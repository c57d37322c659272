//! Importing the bundle: once, and no other ever.

use std::path::Path;

use consign_common::{digest::Sha256, time::UnixMs, tls::Ca};

use super::ServeError;
use crate::{
    bundle::Bundle,
    enrolment::{Authority, AuthorityError},
    grpc::{AllowList, Identity, Role},
    operators::Operators,
    store::{Store, StoreError, column::from_u64},
    trust_roots,
};

/// What was imported, now or before.
#[derive(Clone, Debug)]
pub(super) struct Imported {
    pub coordinator: String,
    pub advertise: Option<String>,
}

pub(super) async fn import(
    store: &Store,
    bundle: Option<&Path>,
    now: UnixMs,
) -> Result<Imported, ServeError> {
    let known: Option<(String, String, Option<String>)> =
        sqlx::query_as("SELECT id, bundle_sha256, advertise FROM coordinator")
            .fetch_optional(store.read())
            .await
            .map_err(StoreError::from)?;
    // Once it was imported it is to be deleted, and a unit still names it.
    let left = bundle.filter(|path| known.is_none() || path.exists());
    let bundle = left.map(Bundle::read).transpose()?;
    match (known, bundle) {
        (None, None) => Err(ServeError::NoBundle { state: store.state().root().to_owned() }),
        (Some((coordinator, _, advertise)), None) => Ok(Imported { coordinator, advertise }),
        (Some((coordinator, sha256, advertise)), Some(bundle)) => {
            if sha256 != Sha256::of(&bundle.to_bytes()?).to_string() {
                return Err(ServeError::OtherBundle { state: store.state().root().to_owned(), coordinator });
            }
            Ok(Imported { coordinator, advertise })
        }
        (None, Some(bundle)) => first(store, &bundle, now).await,
    }
}

/// The CA's key goes to its file, then the database takes the rest in one transaction: a crash in between leaves what
/// the next start overwrites.
async fn first(store: &Store, bundle: &Bundle, now: UnixMs) -> Result<Imported, ServeError> {
    let coordinator = bundle.coordinator.to_string();
    let ca = Ca::from_pem(&bundle.ca).map_err(AuthorityError::from)?;
    Authority::import(&store.state().identity(), &bundle.ca)?;
    let mut write = store.write().await?;
    let root = trust_roots::import_first(&mut write, &bundle.trust_root()?, now).await?;
    let named = root.coordinators.iter().any(|pin| pin.id == coordinator && pin.ca_sha256 == ca.pin());
    if !named {
        return Err(ServeError::NotNamed { coordinator });
    }
    let operator = &bundle.operator;
    Operators::enrol(&mut write, &operator.name, Role::Admin, "consign init", now).await?;
    let identity = Identity::Operator { name: operator.name.clone() };
    AllowList::add(&mut write, operator.spki_sha256, &identity, operator.certificate_expires, now).await?;
    sqlx::query(
        "INSERT INTO coordinator (one, id, bundle_sha256, advertise, imported_ms) VALUES (1, ?, ?, ?, ?)",
    )
    .bind(&coordinator)
    .bind(Sha256::of(&bundle.to_bytes()?).to_string())
    .bind(&bundle.advertise)
    .bind(from_u64(now.0))
    .execute(&mut *write)
    .await
    .map_err(StoreError::from)?;
    write.commit().await?;
    tracing::info!(coordinator, operator = %operator.name, "bundle imported; delete the file, it holds the CA's key");
    Ok(Imported { coordinator, advertise: bundle.advertise.clone() })
}
