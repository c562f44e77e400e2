//! Files in `/etc` that a sandbox has when the kubelet does not mount its own.

use cri::{DnsConfig, PodSandboxConfig};

/// File names and contents.
pub(crate) fn files(config: &PodSandboxConfig) -> [(&'static str, String); 3] {
    let node = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let resolver = match &config.dns_config {
        Some(dns) => resolv_conf(dns),
        None => node("/etc/resolv.conf"),
    };
    [
        ("hostname", format!("{}\n", hostname(config))),
        ("hosts", node("/etc/hosts")),
        ("resolv.conf", resolver),
    ]
}

/// The pod's hostname, or the node's when the pod has none of its own.
pub(crate) fn hostname(config: &PodSandboxConfig) -> String {
    if config.hostname.is_empty() {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    } else {
        config.hostname.clone()
    }
}

fn resolv_conf(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolver_is_configured_as_asked() {
        let dns = DnsConfig {
            servers: vec!["10.96.0.10".into()],
            searches: vec!["a.svc".into(), "svc".into()],
            options: vec!["ndots:5".into()],
        };
        let text = "search a.svc svc\nnameserver 10.96.0.10\noptions ndots:5\n";
        assert_eq!(resolv_conf(&dns), text);
        assert_eq!(resolv_conf(&DnsConfig::default()), "");
    }
}
