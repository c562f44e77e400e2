//! Flags of components of which one copy works and the others wait.

use std::time::Duration;

use anyhow::Context;
use clap::ArgAction;
use client::LeaderElection;
use jiff::SignedDuration;

/// Whether and how copies compete, with upstream's names and defaults.
#[derive(clap::Args)]
pub(crate) struct Election {
    /// Whether only one of several copies works.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
        default_missing_value = "true")]
    leader_elect: bool,
    /// How long a lease that is not renewed keeps the other copies waiting.
    #[arg(long, default_value = "15s")]
    leader_elect_lease_duration: SignedDuration,
    /// How long the leader tries to renew its lease before it gives up.
    #[arg(long, default_value = "10s")]
    leader_elect_renew_deadline: SignedDuration,
    /// Time between tries.
    #[arg(long, default_value = "2s")]
    leader_elect_retry_period: SignedDuration,
    /// What the copies compete for: only leases.
    #[arg(long, default_value = "leases", value_parser = ["leases"])]
    leader_elect_resource_lock: String,
    /// Name of the lease; default: the component's name.
    #[arg(long)]
    leader_elect_resource_name: Option<String>,
    /// Namespace of the lease.
    #[arg(long, default_value = "kube-system")]
    leader_elect_resource_namespace: String,
}

impl Election {
    /// How `identity` competes for `component`'s lease; `None` when nobody competes.
    pub(crate) fn of(
        &self,
        component: &str,
        identity: String,
    ) -> anyhow::Result<Option<LeaderElection>> {
        if !self.leader_elect {
            return Ok(None);
        }
        let time = |flag: &str, time: SignedDuration| {
            Duration::try_from(time).with_context(|| format!("--leader-elect-{flag} is negative"))
        };
        let name = self.leader_elect_resource_name.as_deref().unwrap_or(component);
        let election = LeaderElection {
            namespace: self.leader_elect_resource_namespace.clone(),
            lease_duration: time("lease-duration", self.leader_elect_lease_duration)?,
            renew_deadline: time("renew-deadline", self.leader_elect_renew_deadline)?,
            retry_period: time("retry-period", self.leader_elect_retry_period)?,
            ..LeaderElection::new(name, identity)
        };
        election.check().context("flags of the leader election")?;
        Ok(Some(election))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        election: Election,
    }

    fn of(flags: &[&str]) -> anyhow::Result<Option<LeaderElection>> {
        let flags = Flags::try_parse_from(std::iter::once("c").chain(flags.iter().copied()))?;
        flags.election.of("kube-scheduler", "me".to_owned())
    }

    #[test]
    fn flags_are_upstreams() {
        let default = of(&[]).unwrap().unwrap();
        assert_eq!(default.name, "kube-scheduler");
        assert_eq!(default.namespace, "kube-system");
        assert_eq!(default.lease_duration, Duration::from_secs(15));
        assert!(of(&["--leader-elect=false"]).unwrap().is_none());
        let other = of(&[
            "--leader-elect",
            "--leader-elect-resource-name=other",
            "--leader-elect-resource-namespace=n",
            "--leader-elect-lease-duration=1m0s",
            "--leader-elect-resource-lock=leases",
        ]);
        let other = other.unwrap().unwrap();
        assert_eq!((other.name.as_str(), other.namespace.as_str()), ("other", "n"));
        assert_eq!(other.lease_duration, Duration::from_secs(60));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        assert!(of(&["--leader-elect-resource-lock=endpoints"]).is_err());
        assert!(of(&["--leader-elect-renew-deadline=15s"]).is_err());
        assert!(of(&["--leader-elect-retry-period=-1s"]).is_err());
    }
}
