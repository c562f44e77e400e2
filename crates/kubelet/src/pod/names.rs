//! The pod's names on the network: hostname, `/etc/hosts` and the resolver.

use std::fmt::Write as _;
use std::net::IpAddr;

use cri::DnsConfig;
use k8s_openapi::api::core::v1::Pod;

use crate::pod::spec;

/// The kernel takes no longer host name.
const HOSTNAME_MAX: usize = 63;

/// Host name and DNS domain of the pod; the domain is empty without a subdomain.
pub(crate) fn hostname_and_domain(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let spec = spec::spec(pod);
    if let Some(hostname) = spec.hostname_override.as_ref().filter(|name| !name.is_empty()) {
        return (hostname.clone(), String::new());
    }
    let given = spec.hostname.as_deref().filter(|name| !name.is_empty());
    let mut hostname = given.unwrap_or(spec::name(pod)).to_owned();
    if given.is_none() && hostname.len() > HOSTNAME_MAX {
        hostname.truncate(HOSTNAME_MAX);
        hostname.truncate(hostname.trim_end_matches(['-', '.']).len());
    }
    let subdomain = spec.subdomain.as_deref().filter(|name| !name.is_empty());
    let domain = subdomain
        .map(|subdomain| format!("{subdomain}.{}.svc.{cluster_domain}", spec::namespace(pod)));
    (hostname, domain.unwrap_or_default())
}

/// The host name that the sandbox gets; the error is the message of a sandbox that cannot be made.
pub(crate) fn sandbox_hostname(pod: &Pod, cluster_domain: &str) -> Result<String, String> {
    let (hostname, domain) = hostname_and_domain(pod, cluster_domain);
    if spec::spec(pod).set_hostname_as_fqdn != Some(true) || domain.is_empty() {
        return Ok(hostname);
    }
    let full = format!("{hostname}.{domain}");
    if full.len() > HOSTNAME_MAX {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too \
             long ({HOSTNAME_MAX} characters is the max, {} characters requested)",
            full.len()
        ));
    }
    Ok(full)
}

/// `/etc/hosts` of a pod. `node_hosts` is the node's own, for pods on its network.
pub(crate) fn hosts_file(
    pod: &Pod,
    ips: &[String],
    cluster_domain: &str,
    node_hosts: &str,
) -> String {
    let mut text = String::new();
    if spec::host_network(pod) {
        text.push_str("# Kubernetes-managed hosts file (host network).\n");
        text.push_str(node_hosts);
    } else {
        text.push_str(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
             fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        let (hostname, domain) = hostname_and_domain(pod, cluster_domain);
        for ip in ips {
            if domain.is_empty() {
                writeln!(text, "{ip}\t{hostname}").ok();
            } else {
                writeln!(text, "{ip}\t{hostname}.{domain}\t{hostname}").ok();
            }
        }
    }
    let aliases = spec::spec(pod).host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            writeln!(text, "{}\t{names}", alias.ip).ok();
        }
    }
    text
}

/// The pod's resolver. `node` is the node's own `resolv.conf`.
pub(crate) fn resolver(
    pod: &Pod,
    cluster_dns: &[IpAddr],
    cluster_domain: &str,
    node: &str,
) -> DnsConfig {
    let spec = spec::spec(pod);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirst" => !spec::host_network(pod),
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut config = if policy == "None" { DnsConfig::default() } else { parse(node) };
    // Without a cluster DNS the node's resolver stands in for it, as upstream's.
    if cluster && !cluster_dns.is_empty() {
        config.servers = cluster_dns.iter().map(ToString::to_string).collect();
        let namespace = spec::namespace(pod);
        let mut searches = vec![
            format!("{namespace}.svc.{cluster_domain}"),
            format!("svc.{cluster_domain}"),
            cluster_domain.to_owned(),
        ];
        searches.append(&mut config.searches);
        config.searches = searches;
        config.options = vec!["ndots:5".to_owned()];
    }
    if let Some(given) = &spec.dns_config {
        config.servers.extend(given.nameservers.iter().flatten().cloned());
        config.searches.extend(given.searches.iter().flatten().cloned());
        for option in given.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            config.options.retain(|other| other.split(':').next() != Some(name.as_str()));
            config.options.push(match &option.value {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name,
            });
        }
    }
    dedupe(&mut config.servers);
    dedupe(&mut config.searches);
    config
}

fn parse(resolv_conf: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in resolv_conf.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => config.servers.extend(words.next()),
            Some("search") => {
                config.searches = words.filter(|domain| domain != ".").collect();
            }
            Some("options") => config.options = words.collect(),
            _ => {}
        }
    }
    config
}

fn dedupe(list: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|item| seen.insert(item.clone()));
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{HostAlias, PodDNSConfig, PodDNSConfigOption};

    use super::*;
    use crate::pod::fixture;

    fn pod() -> Pod {
        fixture::pod("Always", vec![], vec![])
    }

    #[test]
    fn the_hosts_file_names_the_pod_and_its_aliases() {
        let mut pod = pod();
        let spec = pod.spec.as_mut().unwrap();
        spec.subdomain = Some("sub".into());
        spec.host_aliases = Some(vec![HostAlias {
            ip: "123.45.67.89".into(),
            hostnames: Some(vec!["foo".into(), "bar".into()]),
        }]);
        let text = hosts_file(&pod, &["10.0.0.9".into()], "cluster.local", "");
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.contains("\n10.0.0.9\tp.sub.n.svc.cluster.local\tp\n"));
        assert!(text.ends_with("\n# Entries added by HostAliases.\n123.45.67.89\tfoo\tbar\n"));
    }

    #[test]
    fn the_resolver_follows_the_policy_and_the_pods_own_settings() {
        let node = "# x\nnameserver 9.9.9.9\nsearch example.com\noptions edns0\n";
        let dns = [IpAddr::from([10, 96, 0, 10])];
        let config = resolver(&pod(), &dns, "cluster.local", node);
        assert_eq!(config.servers, ["10.96.0.10"]);
        assert_eq!(
            config.searches,
            ["n.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.com"]
        );
        assert_eq!(config.options, ["ndots:5"]);
        let mut own = pod();
        let spec = own.spec.as_mut().unwrap();
        spec.dns_policy = Some("None".into());
        spec.dns_config = Some(PodDNSConfig {
            nameservers: Some(vec!["1.1.1.1".into(), "1.1.1.1".into()]),
            searches: None,
            options: Some(vec![PodDNSConfigOption {
                name: Some("ndots".into()),
                value: Some("2".into()),
            }]),
        });
        let config = resolver(&own, &dns, "cluster.local", node);
        assert_eq!(
            (config.servers, config.options),
            (vec!["1.1.1.1".into()], vec!["ndots:2".into()])
        );
        let mut host = pod();
        host.spec.as_mut().unwrap().host_network = Some(true);
        assert_eq!(resolver(&host, &dns, "c", node).servers, ["9.9.9.9"]);
    }

    #[test]
    fn a_long_name_is_cut_where_the_kernel_would_refuse_it() {
        let mut long = pod();
        long.metadata.name = Some(format!("{}-tail", "x".repeat(62)));
        assert_eq!(hostname_and_domain(&long, "c").0, "x".repeat(62));
    }
}
