//! Servers' keys, and who vouches for them.

use consign_common::{
    audit::About,
    name::{Environment, ServerName},
    trust::{ENROLLED, Refusal, claimed_server, open_enrolled},
};

use super::{ConfigError, Configs, ServerKeys, store};
use crate::audit;

impl Configs {
    /// By name; also servers without a key.
    pub async fn keys(&self, environment: Option<&Environment>) -> Result<Vec<ServerKeys>, ConfigError> {
        let mut keys = store::keys(self.store.read()).await?;
        keys.retain(|keys| environment.is_none_or(|environment| keys.environment == *environment));
        Ok(keys)
    }

    /// Keeps who vouched for a server, if it is for the keys that it has now.
    pub async fn accept(&self, envelope: &[u8], by: &str) -> Result<ServerKeys, ConfigError> {
        let server = claimed_server(envelope)?;
        let root = self.trust_roots.newest();
        audit::note_signers(envelope, &root);
        audit::note(|act| {
            act.about(About::Server, &server).about(About::Predicate, ENROLLED);
        });
        let vouched = open_enrolled(envelope, &root)?;
        audit::note(|act| {
            act.about(About::Environment, &vouched.enrolled.environment);
        });
        let mut write = self.store.write().await?;
        let keys = self.keys_of(&mut write, &server).await?;
        let unknown = |environment: &Environment| ConfigError::ServerUnknown {
            server: server.clone(),
            environment: environment.clone(),
        };
        let keys = keys.ok_or_else(|| unknown(&vouched.enrolled.environment))?;
        if keys.environment != vouched.enrolled.environment {
            return Err(unknown(&vouched.enrolled.environment));
        }
        let is_its = keys.recipient == Some(vouched.recipient.to_string()) && keys.spki == Some(vouched.spki);
        if !is_its {
            return Err(ConfigError::OtherKey { server });
        }
        store::accept(&mut write, &server, envelope, by, self.clock.now()).await?;
        let keys = self.keys_of(&mut write, &server).await?;
        write.commit().await?;
        keys.ok_or_else(|| {
            Refusal::Malformed { what: "statement", why: "the server is gone".to_owned() }.into()
        })
    }

    async fn keys_of(
        &self,
        write: &mut crate::store::Write,
        server: &ServerName,
    ) -> Result<Option<ServerKeys>, ConfigError> {
        let keys = store::keys(&mut **write).await?;
        Ok(keys.into_iter().find(|keys| keys.server == *server))
    }
}
