//! Which agents can read a document: whoever signs one that an agent cannot read yet would leave that server behind.

use std::collections::BTreeSet;

use consign_common::{
    name::Environment,
    trust::{Gate, TrustRoot},
};
use consign_proto::v1;

use crate::cli::{
    client::{Client, unary},
    failure::{Failure, Result},
};

/// A document type and who must read it: the servers of one environment, or all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Needed {
    pub(crate) document: String,
    pub(crate) environment: Option<Environment>,
}

/// What agents must read that they need not read now.
pub(super) fn of_next(root: &TrustRoot, next: &TrustRoot) -> BTreeSet<Needed> {
    let mut needed = BTreeSet::new();
    if next.payload_type() != root.payload_type() {
        needed.insert(Needed { document: next.payload_type().to_owned(), environment: None });
    }
    for (environment, gate) in &next.environments {
        let Gate::Statements { require, rearm, .. } = gate else { continue };
        if root.environments.get(environment) == Some(gate) {
            continue;
        }
        let ours = require.iter().chain(rearm).filter(|rule| rule.predicate.starts_with("consign:"));
        needed.extend(
            ours.map(|rule| Needed {
                document: rule.predicate.clone(),
                environment: Some(environment.clone()),
            }),
        );
    }
    needed
}

/// Refuses, with the servers' names, where an agent has not said that it reads all of these.
pub(crate) async fn check(client: &Client, needed: &BTreeSet<Needed>) -> Result<()> {
    if needed.is_empty() {
        return Ok(());
    }
    let request = unary(v1::ListServersRequest::default());
    let answer = client.operators().list_servers(request).await.map_err(|status| client.failure(status))?;
    match behind(&answer.into_inner().servers, needed) {
        None => Ok(()),
        Some(failure) => Err(failure),
    }
}

fn behind(servers: &[v1::Server], needed: &BTreeSet<Needed>) -> Option<Failure> {
    for Needed { document, environment } in needed {
        let lacks = |server: &&v1::Server| {
            // One that has not been seen yet says what it reads when it comes.
            server.last_seen_ms > 0
                && environment.as_ref().is_none_or(|name| server.environment == name.as_str())
                && !server.document_types.contains(document)
        };
        let names: Vec<&str> = servers.iter().filter(lacks).map(|server| server.name.as_str()).collect();
        if !names.is_empty() {
            let names = names.join(", ");
            return Some(
                Failure::refused(format!("these servers' agents cannot read {document} yet: {names}")).next(
                    "update consign-agent there first; or --leave-behind: they go on with what they have, and take \
                     nothing new until they are updated",
                ),
            );
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use consign_common::trust::{APPROVAL, Separation, TRUST_ROOT_V2_TYPE};

    use super::*;
    use crate::cli::trust::{edit::tests::root, rule::RuleText};

    fn server(name: &str, reads: &[&str]) -> v1::Server {
        v1::Server {
            name: name.into(),
            environment: if name.starts_with('p') { "production" } else { "staging" }.into(),
            last_seen_ms: 1,
            document_types: reads.iter().map(|&it| it.to_owned()).collect(),
            ..v1::Server::default()
        }
    }

    #[test]
    fn agents_that_cannot_read_it_are_named() {
        let old = root();
        let mut new = old.clone();
        assert!(of_next(&old, &new).is_empty());
        let rule = "approval:approvers".parse::<RuleText>().unwrap().0;
        let gate = Gate::Statements { require: vec![rule], rearm: vec![], separation: Separation::Publisher };
        new.environments.insert("production".parse().unwrap(), gate);
        let needed = of_next(&old, &new);
        assert_eq!(needed.len(), 2);
        // A type that the version in force has already says nothing new.
        assert!(of_next(&new, &new).is_empty());

        let both = [TRUST_ROOT_V2_TYPE, APPROVAL];
        let good = [server("p1", &both), server("s1", &both[..1]), server("s2", &both)];
        assert_eq!(behind(&good, &needed), None);
        let old_agents = [server("p1", &both), server("s1", &[]), server("s2", &["x"])];
        let failure = behind(&old_agents, &needed).unwrap();
        assert!(failure.what.ends_with("trust-root.v2+json yet: s1, s2"), "{failure}");
        let no_gate = [server("p1", &both[..1]), server("p2", &both)];
        assert!(behind(&no_gate, &needed).unwrap().what.ends_with("consign:approval/v1 yet: p1"));
        let never_seen = [v1::Server { last_seen_ms: 0, ..server("p1", &[]) }];
        assert_eq!(behind(&never_seen, &needed), None);
    }
}
