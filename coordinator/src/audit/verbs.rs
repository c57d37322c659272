//! Which methods change something: each is a verb of the audit log. A method that is not here changes nothing; a test
//! asks that of every row of `grpc/roles.rs`.

/// Methods and what they are called in the log, as on the command line where there is a command.
pub const VERBS: &[(&str, &str)] = &[
    ("/consign.v1.Enrolment/Enroll", "enroll"),
    ("/consign.v1.Agents/Renew", "certificate renew"),
    ("/consign.v1.Operators/BeginPublish", "artifact publish"),
    ("/consign.v1.Operators/UploadPack", "artifact publish"),
    ("/consign.v1.Operators/PutTrustRoot", "trust update"),
    ("/consign.v1.Operators/CreateToken", "token create"),
    ("/consign.v1.Operators/SetServer", "server set"),
    ("/consign.v1.Operators/RemoveServer", "server remove"),
    ("/consign.v1.Operators/RemoveOperator", "operator remove"),
    ("/consign.v1.Operators/StartRollout", "rollout start"),
    ("/consign.v1.Operators/Rollback", "rollout rollback"),
    ("/consign.v1.Operators/AbortRollout", "rollout abort"),
    ("/consign.v1.Operators/PauseRollout", "rollout pause"),
    ("/consign.v1.Operators/ResumeRollout", "rollout resume"),
    ("/consign.v1.Operators/RetryRollout", "rollout retry"),
    ("/consign.v1.Operators/SkipInRollout", "rollout skip"),
    ("/consign.v1.Operators/DecideStep", "rollout decide"),
    ("/consign.v1.Operators/TakeOver", "env take-over"),
    ("/consign.v1.Operators/ApplyEnvironments", "env apply"),
    ("/consign.v1.Operators/LiftHold", "env lift-hold"),
    ("/consign.v1.Operators/PutStatement", STATEMENT),
    ("/consign.v1.Operators/PutConfig", "config set"),
    ("/consign.v1.Operators/AcceptServer", "server accept"),
    ("/consign.v1.Operators/VetoCandidate", "candidate veto"),
    ("/consign.v1.Operators/HoldEnvironment", "env hold"),
    ("/consign.v1.Operators/AcceptAudit", "audit accept"),
    ("/consign.v1.Operators/TestWebhook", "webhook test"),
    ("/consign.v1.Operators/RetryWebhook", "webhook retry"),
];

pub const STATEMENT: &str = "statement put";

/// What only tells, or is a part of something that is in the log by itself: sessions and logs of agents.
pub const QUERIES: &[&str] = &[
    "/consign.v1.Agents/Session",
    "/consign.v1.Agents/Logs",
    "/consign.v1.Agents/Fetch",
    "/consign.v1.Operators/Status",
    "/consign.v1.Operators/ListArtifacts",
    "/consign.v1.Operators/ShowArtifact",
    "/consign.v1.Operators/FetchArtifact",
    "/consign.v1.Operators/GetTrustRoots",
    "/consign.v1.Operators/ListServers",
    "/consign.v1.Operators/ListOperators",
    "/consign.v1.Operators/PlanRollout",
    "/consign.v1.Operators/CheckRollout",
    "/consign.v1.Operators/ListRollouts",
    "/consign.v1.Operators/ShowRollout",
    "/consign.v1.Operators/FollowRollout",
    "/consign.v1.Operators/ReadLogs",
    "/consign.v1.Operators/ShowHistory",
    "/consign.v1.Operators/ShowTimeline",
    "/consign.v1.Operators/ListEnvironments",
    "/consign.v1.Operators/ShowEnvironment",
    "/consign.v1.Operators/ListStatements",
    "/consign.v1.Operators/ShowEvidence",
    "/consign.v1.Operators/ShowConfig",
    "/consign.v1.Operators/ListSealingKeys",
    "/consign.v1.Operators/ListCandidates",
    "/consign.v1.Operators/ReadAudit",
    "/consign.v1.Operators/AuditHeads",
    "/consign.v1.Operators/ListReceipts",
    "/consign.v1.Operators/ListWebhooks",
];

/// What the method of this path is called in the log; `None`: it is not of those that change something.
pub fn verb(path: &str) -> Option<&'static str> {
    VERBS.iter().find(|(method, _)| *method == path).map(|(_, verb)| *verb)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::roles;

    #[test]
    fn of_every_method_it_is_said_whether_it_changes_something() {
        for (path, _) in roles::TABLE {
            let (is_verb, is_query) = (verb(path).is_some(), QUERIES.contains(path));
            assert!(is_verb != is_query, "{path} stands in one of VERBS and QUERIES of audit/verbs.rs");
        }
    }
}
