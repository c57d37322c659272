//! What is done when a supervisor died under its attempt.

use std::{io, time::Duration};

use super::{
    cgroup::{Cgroup, remove_lost_subtree},
    containment::{Containment, Seeker},
    private,
    processes::boot_id,
    spec::AttemptIdentity,
};

/// Kills what is left of an attempt whose supervisor is gone, and returns when nothing is. Its outcome is then unknown,
/// unless an [`ExitRecord`](super::ExitRecord) was left: read that first.
pub async fn reap_lost(identity: AttemptIdentity) -> io::Result<()> {
    if boot_id()? != identity.boot_id {
        return Ok(());
    }
    if let Err(error) = private::sweep(&identity.deployment, identity.attempt) {
        tracing::warn!(%error, "secrets in files may be left of a lost attempt");
    }
    let reaped = tokio::task::spawn_blocking(move || {
        let process = identity.process.as_ref();
        let containment = Containment {
            mark: identity.mark(),
            cgroup: process.and_then(|process| process.cgroup.as_deref()).and_then(Cgroup::recorded),
            leader: process.map(|process| (process.pid, process.start_ticks)),
            seeker: Seeker::Stranger,
        };
        containment.kill(|| {});
        // A process that was being forked while it was looked for is seen now.
        std::thread::sleep(Duration::from_millis(20));
        containment.kill(|| {});
        if let Some(cgroup) = &containment.cgroup {
            remove_lost_subtree(cgroup);
        }
    });
    reaped.await.map_err(io::Error::other)
}
