//! Whether this host can run a node: what is checked, what was found, what to do.

use std::path::Path;

use netlink::nft::{Family, Hook, HookKind, HookPoint, Rule, Transaction};
use netlink::{Connection, netns};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As needed.
    Ok,
    /// Works, with less.
    Warning,
    /// A node cannot run.
    Failure,
}

/// One checked property of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was checked.
    pub name: &'static str,
    /// How it stands.
    pub level: Level,
    /// What was found.
    pub detail: String,
    /// What to do about it, empty when there is nothing to do.
    pub remedy: &'static str,
}

/// Checks the host. Network features are tried in a namespace of their own; nothing is changed.
pub fn examine() -> Vec<Finding> {
    let mut findings = vec![root()];
    if !rustix::process::geteuid().is_root() {
        // What follows would only say once more that root is missing.
        return findings;
    }
    findings.extend([
        cgroups(),
        filesystem("overlay", "container images cannot be stacked", "load the overlay module"),
        network("bridge and veth devices", "load the bridge and veth modules", try_devices),
        network(
            "nftables",
            "load the nf_tables, nft_chain_nat and nft_fib_ipv4 modules",
            try_nftables,
        ),
        forwarding(),
        oom_score(),
    ]);
    findings
}

fn root() -> Finding {
    let is_root = rustix::process::geteuid().is_root();
    Finding {
        name: "root",
        level: if is_root { Level::Ok } else { Level::Failure },
        detail: format!("user id {}", rustix::process::geteuid().as_raw()),
        remedy: if is_root { "" } else { "run it as root, for example with sudo" },
    }
}

fn cgroups() -> Finding {
    let name = "cgroups";
    let root = Path::new("/sys/fs/cgroup");
    if let Ok(controllers) = std::fs::read_to_string(root.join("cgroup.controllers")) {
        return lacking(name, "v2", &["cpu", "memory", "pids"], controllers.split_whitespace());
    }
    let mounted = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mounted: Vec<String> =
        mounted.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let controllers = mounted.iter().flat_map(|name| name.split(','));
    lacking(name, "v1", &["cpu", "memory", "pids"], controllers)
}

fn lacking<'a>(
    name: &'static str,
    version: &str,
    wanted: &[&str],
    present: impl Iterator<Item = &'a str>,
) -> Finding {
    let present: Vec<&str> = present.collect();
    let missing: Vec<&str> =
        wanted.iter().copied().filter(|controller| !present.contains(controller)).collect();
    let (level, detail, remedy) = if missing.is_empty() {
        (Level::Ok, format!("{version}: {}", wanted.join(", ")), "")
    } else {
        let detail = format!("{version}, without {}", missing.join(", "));
        (Level::Failure, detail, "mount the missing controllers below /sys/fs/cgroup")
    };
    Finding { name, level, detail, remedy }
}

fn filesystem(kind: &'static str, consequence: &str, remedy: &'static str) -> Finding {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let is_known = known.lines().any(|line| line.split_whitespace().last() == Some(kind));
    Finding {
        name: kind,
        level: if is_known { Level::Ok } else { Level::Failure },
        detail: if is_known { "available".to_owned() } else { consequence.to_owned() },
        remedy: if is_known { "" } else { remedy },
    }
}

fn network(
    name: &'static str,
    remedy: &'static str,
    attempt: fn() -> Result<(), netlink::NetlinkError>,
) -> Finding {
    let result = netns::create().and_then(|namespace| netns::inside(&namespace, attempt));
    let (level, detail, remedy) = match result {
        Ok(Ok(())) => (Level::Ok, "available".to_owned(), ""),
        Ok(Err(error)) => (Level::Failure, chain(&error), remedy),
        Err(error) => (
            Level::Failure,
            format!("no network namespace: {error}"),
            "use a kernel with network namespaces, and a container with CAP_SYS_ADMIN",
        ),
    };
    Finding { name, level, detail, remedy }
}

fn try_devices() -> Result<(), netlink::NetlinkError> {
    let mut connection = Connection::open()?;
    connection.add_bridge("br0", 1500)?;
    let namespace = netns::current().map_err(netlink::NetlinkError::Socket)?;
    let netns = std::os::fd::AsFd::as_fd(&namespace);
    connection.add_veth("v0", 1500, &netlink::VethPeer { name: "v1", netns })
}

fn try_nftables() -> Result<(), netlink::NetlinkError> {
    let mut transaction = Transaction::new(Family::Ip, "doctor");
    let hook = Hook { kind: HookKind::Nat, point: HookPoint::Postrouting, priority: 100 };
    transaction.replace_table().add_chain("c", Some(hook));
    transaction.add_rule("c", &Rule::new().destination_is_local().masquerade());
    transaction.commit()
}

fn forwarding() -> Finding {
    let path = Path::new("/proc/sys/net/ipv4/ip_forward");
    let value = std::fs::read_to_string(path).unwrap_or_default();
    let is_on = value.trim() == "1";
    let writable = is_on || std::fs::OpenOptions::new().write(true).open(path).is_ok();
    Finding {
        name: "IPv4 forwarding",
        level: if writable { Level::Ok } else { Level::Failure },
        detail: match (is_on, writable) {
            (true, _) => "on",
            (false, true) => "off, will be switched on",
            (false, false) => "off, and cannot be switched on",
        }
        .to_owned(),
        remedy: if writable { "" } else { "set net.ipv4.ip_forward to 1" },
    }
}

fn oom_score() -> Finding {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    let has = effective & CAP_SYS_RESOURCE != 0;
    Finding {
        name: "CAP_SYS_RESOURCE",
        level: if has { Level::Ok } else { Level::Warning },
        detail: if has {
            "available".to_owned()
        } else {
            "missing: guaranteed pods are not protected from the OOM killer".to_owned()
        },
        remedy: if has { "" } else { "nothing, unless memory is short" },
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_controllers_are_named() {
        let finding = lacking("cgroups", "v2", &["cpu", "memory", "pids"], ["cpu"].into_iter());
        assert_eq!(finding.level, Level::Failure);
        assert_eq!(finding.detail, "v2, without memory, pids");
    }

    #[test]
    fn every_failure_comes_with_a_remedy() {
        for finding in examine() {
            assert_eq!(finding.level == Level::Ok, finding.remedy.is_empty(), "{finding:?}");
        }
    }
}
