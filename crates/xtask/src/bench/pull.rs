//! Images: how fast they come from Debian's registry on the loopback, and from an archive.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::ensure;
use clock::{Clock, SystemClock};
use testkit::{DockerRegistry, Host, ImageBuilder, REGISTRY_PACKAGE, command};

use super::Figure;

/// Layers, and the size of each before it is compressed.
const LAYERS: usize = 4;
const LAYER_BYTES: u64 = 100 << 20;
/// The best of so many counts: the first fills caches.
const ROUNDS: usize = 3;

pub(crate) fn measure(ironclad: &Path) -> anyhow::Result<Vec<Figure>> {
    crate::test::install(&[REGISTRY_PACKAGE])?;
    let (host, directory) = (Host::new()?, tempfile::tempdir()?);
    let registry = DockerRegistry::start(&host, directory.path())?;
    let pushed = registry.push(&host, "bench:1", image("bench:1", "one")?)?;
    let second = registry.push(&host, "bench:2", image("bench:2", "two")?)?;
    let archive = directory.path().join("bench.tar");
    std::fs::write(&archive, image("bench:1", "one")?.build()?)?;

    let name = |tag| format!("{}/bench:{tag}", DockerRegistry::ADDRESS);
    let (mut pull, mut shared, mut import) = (Duration::MAX, Duration::MAX, Duration::MAX);
    // Kept to the end: for minutes, ext4 looks for files of other numbers than those just removed.
    let mut stores = Vec::new();
    for _ in 0..ROUNDS {
        let data = tempfile::tempdir_in(directory.path())?;
        let pulled = |tag| {
            let name = name(tag);
            run(&host, ironclad, data.path(), &["pull", "--username", "user", &name])
        };
        pull = pull.min(pulled(1)?);
        shared = shared.min(pulled(2)?);
        stores.push(data);
        let data = tempfile::tempdir_in(directory.path())?;
        let archive = archive.display().to_string();
        import = import.min(run(&host, ironclad, data.path(), &["import", &archive])?);
        stores.push(data);
    }
    let rate = |bytes: u64, took: Duration| bytes as f64 / 1e6 / took.as_secs_f64();
    Ok(vec![
        Figure::new(
            format!("pull of {LAYERS} layers, {:.0} MB of gzip", pushed.sent as f64 / 1e6),
            format!(
                "{:.0} MB/s as they come, {:.0} MB/s unpacked",
                rate(pushed.sent, pull),
                rate(pushed.unpacked, pull)
            ),
        ),
        Figure::new(
            format!("pull of an image of {:.0} MB that shares them", second.sent as f64 / 1e6),
            format!("{} ms", shared.as_millis()),
        ),
        Figure::new(
            "import of the same layers from an archive",
            format!("{:.0} MB/s", rate(pushed.unpacked, import)),
        ),
    ])
}

/// An image of files of this machine, and one small layer of its own.
fn image(name: &str, own: &str) -> anyhow::Result<ImageBuilder> {
    let mut image = ImageBuilder::new(name, &["/none"]);
    let (mut layers, mut bytes) = (1, 0);
    let mut waiting = vec![std::path::PathBuf::from("/usr")];
    while let Some(directory) = waiting.pop() {
        let mut entries: Vec<_> =
            std::fs::read_dir(&directory)?.flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for path in entries {
            let metadata = std::fs::symlink_metadata(&path)?;
            if metadata.is_dir() {
                waiting.push(path);
            } else if metadata.is_file() && metadata.len() <= LAYER_BYTES / 4 {
                bytes += metadata.len();
                image.file(&path, &path.display().to_string())?;
            }
            if bytes >= LAYER_BYTES {
                image.next_layer()?;
                (layers, bytes) = (layers + 1, 0);
            }
            if layers > LAYERS {
                image.text("/own", own)?;
                return Ok(image);
            }
        }
    }
    anyhow::bail!("this machine has too few files to measure with")
}

/// How long `ironclad image` takes, from start to end.
fn run(host: &Host, ironclad: &Path, data: &Path, args: &[&str]) -> anyhow::Result<Duration> {
    let password = data.join("password");
    std::fs::write(&password, "secret\n")?;
    let mut image = command(ironclad);
    image.args(["image", "--data-dir"]).arg(data).args(args).stdout(Stdio::null());
    image.stdin(std::fs::File::open(password)?);
    let (took, output) = host.run(move || {
        let begun = SystemClock.monotonic();
        let output = image.output();
        (SystemClock.monotonic().duration_since(begun), output)
    });
    let output = output?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(took)
}
