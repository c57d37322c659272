//! Which roles may call which method: every method of every service, and nothing that is not here.

use super::Role;

const OPERATORS: &[Role] = &[Role::Viewer, Role::Deployer, Role::Ci, Role::Admin];
const PUBLISHERS: &[Role] = &[Role::Deployer, Role::Ci, Role::Admin];
const DEPLOYERS: &[Role] = &[Role::Deployer, Role::Admin];
const ADMINS: &[Role] = &[Role::Admin];
const AGENTS: &[Role] = &[Role::Agent];

/// CI publishes, rolls out and aborts what it began. Going back, taking servers out, and going on after a restored backup
/// are a person's.
pub const TABLE: &[(&str, &[Role])] = &[
    ("/consign.v1.Enrolment/Enroll", &[Role::Anonymous]),
    ("/consign.v1.Agents/Session", AGENTS),
    ("/consign.v1.Agents/Logs", AGENTS),
    ("/consign.v1.Agents/Fetch", AGENTS),
    // All that an expired certificate reaches; operators renew here too.
    (
        "/consign.v1.Agents/Renew",
        &[Role::Expired, Role::Agent, Role::Viewer, Role::Deployer, Role::Ci, Role::Admin],
    ),
    ("/consign.v1.Operators/Status", OPERATORS),
    ("/consign.v1.Operators/BeginPublish", PUBLISHERS),
    ("/consign.v1.Operators/UploadPack", PUBLISHERS),
    ("/consign.v1.Operators/ListArtifacts", OPERATORS),
    ("/consign.v1.Operators/ShowArtifact", OPERATORS),
    ("/consign.v1.Operators/FetchArtifact", OPERATORS),
    ("/consign.v1.Operators/GetTrustRoots", OPERATORS),
    ("/consign.v1.Operators/PutTrustRoot", ADMINS),
    ("/consign.v1.Operators/CreateToken", ADMINS),
    ("/consign.v1.Operators/ListServers", OPERATORS),
    ("/consign.v1.Operators/SetServer", DEPLOYERS),
    ("/consign.v1.Operators/RemoveServer", ADMINS),
    ("/consign.v1.Operators/ListOperators", OPERATORS),
    ("/consign.v1.Operators/RemoveOperator", ADMINS),
    ("/consign.v1.Operators/StartRollout", PUBLISHERS),
    ("/consign.v1.Operators/Rollback", DEPLOYERS),
    // Whoever approves sees what would run, and an approver may be a viewer.
    ("/consign.v1.Operators/PlanRollout", OPERATORS),
    ("/consign.v1.Operators/AbortRollout", PUBLISHERS),
    ("/consign.v1.Operators/TakeOver", DEPLOYERS),
    ("/consign.v1.Operators/PauseRollout", DEPLOYERS),
    ("/consign.v1.Operators/ResumeRollout", DEPLOYERS),
    ("/consign.v1.Operators/RetryRollout", DEPLOYERS),
    ("/consign.v1.Operators/SkipInRollout", DEPLOYERS),
    ("/consign.v1.Operators/DecideStep", DEPLOYERS),
    ("/consign.v1.Operators/ListRollouts", OPERATORS),
    ("/consign.v1.Operators/ShowRollout", OPERATORS),
    ("/consign.v1.Operators/FollowRollout", OPERATORS),
    ("/consign.v1.Operators/ReadLogs", OPERATORS),
    ("/consign.v1.Operators/ShowHistory", OPERATORS),
    ("/consign.v1.Operators/ShowTimeline", OPERATORS),
    ("/consign.v1.Operators/ApplyEnvironments", ADMINS),
    ("/consign.v1.Operators/ListEnvironments", OPERATORS),
    ("/consign.v1.Operators/ShowEnvironment", OPERATORS),
    ("/consign.v1.Operators/LiftHold", DEPLOYERS),
    ("/consign.v1.Operators/PutConfig", DEPLOYERS),
    ("/consign.v1.Operators/ShowConfig", OPERATORS),
    ("/consign.v1.Operators/ListSealingKeys", OPERATORS),
    ("/consign.v1.Operators/AcceptServer", ADMINS),
    // An approval counts by its signature, whoever brings it; the service takes nothing else from viewers.
    ("/consign.v1.Operators/PutStatement", OPERATORS),
    ("/consign.v1.Operators/ListStatements", OPERATORS),
    ("/consign.v1.Operators/CheckRollout", OPERATORS),
    ("/consign.v1.Operators/ListCandidates", OPERATORS),
    ("/consign.v1.Operators/VetoCandidate", DEPLOYERS),
    ("/consign.v1.Operators/HoldEnvironment", DEPLOYERS),
];

/// Whether `role` may call the method of this path.
pub fn may_call(role: Role, path: &str) -> bool {
    TABLE.iter().find(|(method, _)| *method == path).is_some_and(|(_, roles)| roles.contains(&role))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn every_method_of_the_descriptor_has_exactly_one_row() {
        let set = FileDescriptorSet::decode(consign_proto::DESCRIPTOR).unwrap();
        let mut methods = BTreeSet::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    methods.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
        let rows: BTreeSet<_> = TABLE.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(rows, methods);
        assert_eq!(rows.len(), TABLE.len(), "a method has two rows");
    }

    #[test]
    fn what_has_no_row_is_nobodys() {
        for role in Role::ALL {
            assert!(!may_call(role, "/consign.v1.Operators/Everything"));
            assert!(!may_call(role, "/consign.v1.Operators/Status/"));
            assert!(!may_call(role, ""));
        }
    }

    #[test]
    fn an_expired_certificate_reaches_renewal_only() {
        let reached: Vec<_> = TABLE.iter().filter(|(path, _)| may_call(Role::Expired, path)).collect();
        assert_eq!(reached.len(), 1);
        assert_eq!(reached.first().unwrap().0, "/consign.v1.Agents/Renew");
    }
}
