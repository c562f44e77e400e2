//! Directories of file servers, which the node's own `mount.nfs` mounts: the kernel's options take
//! names already looked up and versions already agreed upon, which that program does.
//!
//! It is the only program that a kubelet runs. What is told of its failures is what `mount`, which
//! upstream runs, says (`mount-utils`, `mount_linux.go`).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::NFSVolumeSource;

use super::mounts::Mounts;

const HELPER: &str = "mount.nfs";
/// The helper itself gives up after two minutes, unless it is told otherwise.
const PATIENCE: Duration = Duration::from_secs(180);
/// What is told of the helper's output.
const OUTPUT_BYTES_MAX: usize = 4096;
/// The exit code of `mount` when it has failed.
const MOUNT_FAILED: &str = "exit status 32";

/// What is to be mounted, and where.
pub(super) struct Share<'a> {
    pub(super) source: &'a NFSVolumeSource,
    /// The volume is only read, whatever its source says.
    pub(super) read_only: bool,
    pub(super) options: &'a [String],
    pub(super) target: PathBuf,
}

/// Mounts a directory of a server unless that was done; `helpers` are the directories in which the
/// helper is looked for. The error is the end of a `FailedMount` event.
///
/// When it is dropped the helper is killed; what it may have mounted is found by the next call, or
/// goes with the pod.
pub(super) async fn mount(
    mounts: &dyn Mounts,
    helpers: &[PathBuf],
    share: Share<'_>,
) -> Result<PathBuf, String> {
    let Share { source, target, .. } = &share;
    // Looked up without touching it: the server may be gone.
    if mounts.is_mounted(target).map_err(|error| error.to_string())? {
        return Ok(share.target);
    }
    std::fs::create_dir_all(target).map_err(|error| error.to_string())?;
    let server = match source.server.contains(':') && !source.server.starts_with('[') {
        true => format!("[{}]", source.server),
        false => source.server.clone(),
    };
    let remote = format!("{server}:{}", source.path);
    let mut options: BTreeSet<&str> = share.options.iter().map(String::as_str).collect();
    if share.read_only || source.read_only == Some(true) {
        options.insert("ro");
    }
    let options: Vec<&str> = options.into_iter().collect();
    let options = options.join(",");
    let failed = |status: &str, output: &str| failure(status, (&remote, target), &options, output);
    let Some(helper) = helpers.iter().map(|dir| dir.join(HELPER)).find(|path| path.is_file())
    else {
        let output = format!(
            "mount: {}: bad option; for several filesystems (e.g. nfs, cifs) you might need a \
             /sbin/mount.<type> helper program.",
            target.display()
        );
        return Err(failed(MOUNT_FAILED, &output));
    };
    let done = run(&helper, &remote, target, &options).await;
    let (status, output) = done.map_err(|error| failed(MOUNT_FAILED, &error.to_string()))?;
    if !status.success() {
        return Err(failed(&printed(status), &output));
    }
    Ok(share.target)
}

async fn run(
    helper: &Path,
    remote: &str,
    target: &Path,
    options: &str,
) -> io::Result<(ExitStatus, String)> {
    let mut command = tokio::process::Command::new(helper);
    command.arg(remote).arg(target).stdin(Stdio::null()).kill_on_drop(true);
    if !options.is_empty() {
        command.args(["-o", options]);
    }
    let output = tokio::time::timeout(PATIENCE, command.output()).await??;
    let mut text = [output.stdout, output.stderr].concat();
    text.truncate(OUTPUT_BYTES_MAX);
    Ok((output.status, String::from_utf8_lossy(&text).trim_end().to_owned()))
}

/// As Go prints it.
fn printed(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}

fn failure(status: &str, (remote, target): (&str, &Path), options: &str, output: &str) -> String {
    let given = if options.is_empty() { String::new() } else { format!("-o {options} ") };
    format!(
        "mount failed: {status}\nMounting command: mount\nMounting arguments: -t nfs {given}{remote} \
         {}\nOutput: {output}\n",
        target.display()
    )
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Says of what is in a directory's file `mounted` that it is a mount.
    struct Noted(PathBuf);

    impl Mounts for Noted {
        fn memory(&self, _: &Path, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn bind(&self, _: &OwnedFd, _: &Path) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn is_mounted(&self, path: &Path) -> io::Result<bool> {
            let noted = std::fs::read_to_string(&self.0).unwrap_or_default();
            Ok(noted.lines().any(|line| Path::new(line) == path))
        }

        fn unmount_all(&self, _: &Path) -> io::Result<()> {
            Ok(())
        }
    }

    struct World {
        dir: tempfile::TempDir,
    }

    impl World {
        fn new(helper: Option<&str>) -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("sbin")).unwrap();
            if let Some(script) = helper {
                let path = dir.path().join("sbin/mount.nfs");
                std::fs::write(&path, format!("#!/bin/sh\ncd {}\n{script}", dir.path().display()))
                    .unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            }
            Self { dir }
        }

        async fn mount(&self, read_only: bool, options: &[&str]) -> Result<PathBuf, String> {
            let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
            let source = NFSVolumeSource {
                server: "fd00::1".into(),
                path: "/export".into(),
                ..NFSVolumeSource::default()
            };
            let target = self.dir.path().join("pod/v");
            let share = Share { source: &source, read_only, options: &options, target };
            let mounts = Noted(self.dir.path().join("mounted"));
            let helpers = [self.dir.path().join("absent"), self.dir.path().join("sbin")];
            mount(&mounts, &helpers, share).await
        }

        fn read(&self, name: &str) -> String {
            std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
        }
    }

    #[tokio::test]
    async fn the_helper_is_run_once_with_the_options_of_the_volume() {
        let world = World::new(Some("echo \"$@\" >> ran; echo \"$2\" >> mounted"));
        let target = world.dir.path().join("pod/v");
        for _ in 0..2 {
            let found = world.mount(true, &["vers=4.1", "hard"]).await;
            assert_eq!(found.as_ref(), Ok(&target));
        }
        let shown = target.display();
        assert_eq!(world.read("ran"), format!("[fd00::1]:/export {shown} -o hard,ro,vers=4.1\n"));
        assert!(target.is_dir());
    }

    #[tokio::test]
    async fn what_the_helper_says_of_a_failure_is_told() {
        let world = World::new(Some("echo 'mount.nfs: access denied' >&2; exit 32"));
        let target = world.dir.path().join("pod/v").display().to_string();
        assert_eq!(
            world.mount(false, &[]).await.unwrap_err(),
            format!(
                "mount failed: exit status 32\nMounting command: mount\n\
                 Mounting arguments: -t nfs [fd00::1]:/export {target}\n\
                 Output: mount.nfs: access denied\n"
            )
        );
    }

    #[tokio::test]
    async fn without_a_helper_it_is_said_what_is_missing() {
        let world = World::new(None);
        let target = world.dir.path().join("pod/v").display().to_string();
        assert_eq!(
            world.mount(true, &[]).await.unwrap_err(),
            format!(
                "mount failed: exit status 32\nMounting command: mount\n\
                 Mounting arguments: -t nfs -o ro [fd00::1]:/export {target}\n\
                 Output: mount: {target}: bad option; for several filesystems (e.g. nfs, cifs) you \
                 might need a /sbin/mount.<type> helper program.\n"
            )
        );
    }
}
