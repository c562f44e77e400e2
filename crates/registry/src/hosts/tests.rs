//! Configurations as users have them.

use super::*;

fn hosts(domain: &str, files: &[(&str, &str)]) -> Result<Vec<Host>, HostsError> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    HostsDirectory::new(dir.path()).hosts(domain)
}

fn bases(hosts: &[Host]) -> Vec<String> {
    hosts.iter().map(|h| format!("{}://{}{}", h.scheme, h.authority, h.prefix)).collect()
}

#[test]
fn without_a_file_a_registry_is_where_its_name_says() {
    for (domain, base) in [
        ("docker.io", "https://registry-1.docker.io/v2"),
        ("r.example", "https://r.example/v2"),
        ("r.example:5000", "https://r.example:5000/v2"),
        ("localhost:5000", "http://localhost:5000/v2"),
        ("127.0.0.2", "http://127.0.0.2/v2"),
        ("localhost:443", "https://localhost:443/v2"),
    ] {
        assert_eq!(bases(&hosts(domain, &[]).unwrap()), [base]);
    }
}

#[test]
fn mirrors_come_in_the_order_of_the_file_and_the_server_last() {
    let text = r#"
server = "https://r.example"
[host."https://zzz.example"]
capabilities = ["pull"]
[host."http://aaa.example:8080/cache"]
skip_verify = true
header = { x-one = "1", x-many = ["2", "3"] }
dial_timeout = "5s"
[host."https://b.example/deep/v2"]
[host."https://c.example/as/is"]
override_path = true
"#;
    let hosts = hosts("r.example", &[("r.example/hosts.toml", text)]).unwrap();
    assert_eq!(
        bases(&hosts),
        [
            "https://zzz.example/v2",
            "http://aaa.example:8080/cache/v2",
            "https://b.example/deep/v2",
            "https://c.example/as/is",
            "https://r.example/v2",
        ]
    );
    assert!(hosts[0].pull && !hosts[0].resolve && !hosts[0].is_registry);
    assert!(hosts[1].tls.skip_verify && hosts[1].headers.len() == 3);
    assert_eq!(hosts[1].dial_timeout, Duration::from_secs(5));
    assert!(hosts[4].is_registry && hosts[4].namespace.is_none());
    let url = hosts[0].url("a/b", "manifests", "1").unwrap().to_string();
    assert_eq!(url, "https://zzz.example/v2/a/b/manifests/1?ns=r.example");
}

#[test]
fn a_directory_is_found_by_port_in_both_spellings_and_by_default() {
    let at = |name: &str| format!("[host.\"https://{name}\"]");
    let files = [
        ("a_5000_/hosts.toml", &*at("underscore")),
        ("b:5000/hosts.toml", &*at("colon")),
        ("_default/hosts.toml", &*at("default")),
    ];
    for (domain, mirror) in
        [("a:5000", "underscore"), ("b:5000", "colon"), ("c:5000", "default"), ("a", "default")]
    {
        let found = hosts(domain, &files).unwrap();
        assert_eq!(found[0].authority.as_str(), mirror, "{domain}");
    }
}

#[test]
fn certificates_are_files_beside_the_configuration() {
    let text = r#"
ca = ["one.pem", "/etc/two.pem"]
client = [["c.pem", "k.pem"]]
"#;
    let tls = hosts("r.example", &[("r.example/hosts.toml", text)]).unwrap().remove(0).tls;
    assert!(tls.authorities[0].ends_with("r.example/one.pem"));
    assert_eq!(tls.authorities[1], Path::new("/etc/two.pem"));
    assert!(tls.certificate.unwrap().1.ends_with("r.example/k.pem"));
    let docker = [("r.example/ca.crt", ""), ("r.example/a.cert", ""), ("r.example/a.key", "")];
    let tls = hosts("r.example", &docker).unwrap().remove(0).tls;
    assert!(tls.authorities[0].ends_with("ca.crt"));
    assert!(tls.certificate.unwrap().1.ends_with("a.key"));
}

#[test]
fn what_cannot_be_understood_is_refused() {
    for text in [
        "server = 1",
        "[host.\"ftp://x\"]",
        "[host.\"https://x\"]\ncapabilities = [\"fly\"]",
        "[host.\"https://x\"]\nunknown = true",
        "dial_timeout = \"soon\"",
        "[host.\"https://x\".header]\n\"a b\" = \"c\"",
        "client = [\"a\", \"b\"]",
        "this is no toml",
    ] {
        assert!(hosts("r.example", &[("r.example/hosts.toml", text)]).is_err(), "{text}");
    }
}
