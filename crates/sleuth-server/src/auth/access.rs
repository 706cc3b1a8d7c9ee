//! What a call takes.

use super::Role;

/// What a call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing: load balancers and orchestrators have no credentials, and health says only
    /// whether the server serves.
    Open,
    /// Any credentials.
    Known,
    /// One of these roles.
    Any(&'static [Role]),
}

/// Those who score.
pub(crate) const SCORE: Access = Access::Any(&[Role::Score, Role::Router]);
/// Those who describe the model.
pub(crate) const READ: Access = Access::Any(&[Role::Read, Role::Score, Role::Router]);
const LOAD: Access = Access::Any(&[Role::Read, Role::Router]);
const ADMIN: Access = Access::Any(&[Role::Admin]);

/// Every call of the contract. What is not here takes credentials and is then UNIMPLEMENTED.
const CALLS: &[(&str, Access)] = &[
    ("/sleuth.v1.RewardService/ScoreTokens", SCORE),
    ("/sleuth.v1.RewardService/ScoreBatch", SCORE),
    ("/sleuth.v1.RewardService/Correct", SCORE),
    ("/sleuth.v1.RewardService/PutImage", SCORE),
    ("/sleuth.v1.RewardService/HasImages", SCORE),
    ("/sleuth.v1.RewardService/Tokenize", READ),
    ("/sleuth.v1.RewardService/GetModel", READ),
    ("/sleuth.v1.ReplicaService/WatchLoad", LOAD),
    ("/sleuth.v1.AdminService/ListAdapters", ADMIN),
    ("/sleuth.v1.AdminService/LoadAdapter", ADMIN),
    ("/sleuth.v1.AdminService/UnloadAdapter", ADMIN),
    ("/sleuth.v1.AdminService/LoadWeights", ADMIN),
    ("/sleuth.v1.AdminService/Drain", ADMIN),
    ("/sleuth.v1.AdminService/SetLogFilter", ADMIN),
];

/// What a call takes, by its path.
pub(super) fn access(path: &str) -> Access {
    if path.starts_with("/grpc.health.v1.Health/") {
        return Access::Open;
    }
    // Also a call of the service that is newer than this table.
    if path.starts_with("/sleuth.v1.AdminService/") {
        return ADMIN;
    }
    CALLS.iter().find(|(call, _)| *call == path).map_or(Access::Known, |&(_, access)| access)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn every_call_of_the_contract_has_its_rule() {
        let set = FileDescriptorSet::decode(sleuth_proto::FILE_DESCRIPTOR_SET).unwrap();
        let mut calls = BTreeSet::new();
        for file in set.file.iter().filter(|file| file.package() == "sleuth.v1") {
            for service in &file.service {
                for method in &service.method {
                    calls.insert(format!("/sleuth.v1.{}/{}", service.name(), method.name()));
                }
            }
        }
        let ruled: BTreeSet<_> = CALLS.iter().map(|(call, _)| (*call).to_owned()).collect();
        assert_eq!(calls, ruled);
    }

    #[test]
    fn only_health_is_open_and_only_admins_administer() {
        assert_eq!(access("/grpc.health.v1.Health/Check"), Access::Open);
        assert_eq!(
            access("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
            Access::Known
        );
        assert_eq!(access("/sleuth.v1.AdminService/SomethingNewer"), ADMIN);
        assert_eq!(access("/other.Service/Call"), Access::Known);
        for (call, access) in CALLS {
            assert_eq!(call.contains(".AdminService/"), *access == ADMIN, "{call}");
        }
    }
}
