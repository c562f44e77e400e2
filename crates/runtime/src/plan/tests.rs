//! What a container is made of, from its configuration.

use cri::{KeyValue, Mount};

use super::*;

fn run_config() -> RunConfig {
    RunConfig {
        user: "app".into(),
        env: vec!["A=image".into(), "B=image".into()],
        entrypoint: vec!["/entry".into()],
        cmd: vec!["one".into(), "two".into()],
        working_dir: "/work".into(),
        stop_signal: "SIGINT".into(),
    }
}

fn check(config: &ContainerConfig) -> Result<ContainerSpec, CriError> {
    plan(&Inputs {
        id: "c",
        config,
        sandbox: &PodSandboxConfig::default(),
        image: &run_config(),
        hostname: "pod",
        sandbox_directory: Path::new("/s"),
        image_mounts: &[vec!["/layer".into()]],
        target_pid: None,
    })
}

#[test]
fn command_and_arguments_replace_the_images_as_upstream_does() {
    let with = |command: &[&str], args: &[&str]| {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        let config = ContainerConfig {
            command: words(command),
            args: words(args),
            ..ContainerConfig::default()
        };
        check(&config).unwrap().args.join(" ")
    };
    assert_eq!(with(&[], &[]), "/entry one two");
    assert_eq!(with(&[], &["x"]), "/entry x");
    assert_eq!(with(&["/c"], &[]), "/c");
    assert_eq!(with(&["/c"], &["x"]), "/c x");
}

#[test]
fn the_pods_environment_wins_over_the_images() {
    let mut config = ContainerConfig::default();
    config.envs.push(KeyValue { key: "B".into(), value: "pod=1".into() });
    let env = check(&config).unwrap().env;
    assert_eq!(env[1..], ["HOSTNAME=pod", "A=image", "B=pod=1"]);
    assert!(env[0].starts_with("PATH=/usr/local/sbin"));
}

#[test]
fn users_are_taken_from_the_pod_before_the_image() {
    let mut config = ContainerConfig::default();
    assert_eq!(check(&config).unwrap().user.name, "app");
    config.linux.security_context.run_as_group = Some(5);
    assert!(check(&config).unwrap_err().message().contains("without user"));
    config.linux.security_context.run_as_user = Some(7);
    let user = check(&config).unwrap().user;
    assert_eq!((user.name.as_str(), user.gid, user.merge_groups), ("7", Some(5), true));
}

#[test]
fn capabilities_are_added_and_dropped() {
    let with = |add: &[&str], drop: &[&str]| {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        let capability = Capability {
            add_capabilities: words(add),
            drop_capabilities: words(drop),
            add_ambient_capabilities: Vec::new(),
        };
        capabilities(Some(&capability), false).map(|set| set.bounding)
    };
    let default = mask(DEFAULT_CAPABILITIES).unwrap();
    assert_eq!(default, 0xa804_25fb);
    assert_eq!(with(&[], &[]).unwrap(), default);
    assert_eq!(with(&["NET_ADMIN"], &["ALL"]).unwrap(), 1 << 12);
    assert_eq!(with(&["ALL"], &["CAP_CHOWN"]).unwrap(), ((1 << 41) - 1) & !1);
    assert_eq!(with(&["nope"], &[]).unwrap_err().message(), "unknown capability \"CAP_NOPE\"");
    assert!(check(&ContainerConfig::default()).unwrap().capabilities.ambient == 0);
}

#[test]
fn outer_mounts_come_before_inner_ones_and_given_files_before_generated_ones() {
    let mut config = ContainerConfig::default();
    for path in ["/a/b/c", "/a", "/etc/hosts"] {
        let container_path = path.to_owned();
        config.mounts.push(Mount { container_path, host_path: "/h".into(), ..Mount::default() });
    }
    let mounts = check(&config).unwrap().mounts;
    let targets: Vec<_> = mounts.iter().map(|m| m.target.to_str().unwrap()).collect();
    assert_eq!(targets, ["/a", "/etc/hostname", "/etc/resolv.conf", "/etc/hosts", "/a/b/c"]);
    assert_eq!(mounts[3].source, Path::new("/h"));
}

#[test]
fn an_image_is_mounted_by_its_layers() {
    let mut config = ContainerConfig::default();
    let image = Mount { image: Some("x".into()), container_path: "/v".into(), ..Mount::default() };
    config.mounts.push(image);
    let mounts = check(&config).unwrap().mounts;
    assert_eq!((&mounts[0].target, &mounts[0].layers), (&"/v".into(), &vec!["/layer".into()]));
}

#[test]
fn what_is_not_built_is_refused() {
    let mut config = ContainerConfig::default();
    config.mounts.push(Mount { uid_mappings: vec![Default::default()], ..Mount::default() });
    let error = check(&config).unwrap_err();
    assert!(error.message().contains("mappings of the pod's user namespace"), "{error}");
    let mut config = ContainerConfig::default();
    config.linux.security_context.privileged = true;
    assert!(check(&config).unwrap_err().message().contains("no privileged container"));
}
