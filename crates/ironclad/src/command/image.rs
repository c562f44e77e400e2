//! `ironclad image import · pull · ls · rm`

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Subcommand;
use clock::{SharedClock, SystemClock};
use registry::{Credentials, Progress, Registry};

use super::images::REGISTRY_CONFIG_DIR;
use crate::{agent, output};

/// Arguments of `ironclad image`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Where the node keeps its state.
    #[arg(long, default_value = "/var/lib/ironclad", global = true)]
    data_dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Load images from OCI or docker archives, also while the cluster runs.
    Import {
        /// Archives: tar files as `docker save` or `skopeo copy … oci-archive:` write them.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Fetch images from their registries, also while the cluster runs.
    Pull {
        /// Names, with a tag or a digest.
        #[arg(required = true)]
        images: Vec<String>,
        /// Mirrors and certificates of registries.
        #[arg(long, default_value = REGISTRY_CONFIG_DIR)]
        registry_config_dir: PathBuf,
        /// The user to be at the registry; the password is read from standard input.
        #[arg(long)]
        username: Option<String>,
    },
    /// List images.
    Ls,
    /// Remove images by name or id.
    Rm {
        /// Names or ids.
        #[arg(required = true)]
        images: Vec<String>,
    },
}

/// Runs it.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let store = image::Store::open(agent::images_dir(&args.data_dir))
        .context("the image store cannot be opened")?;
    match args.command {
        Command::Import { files } => {
            for file in files {
                let archive = std::fs::File::open(&file)
                    .with_context(|| format!("cannot open {}", file.display()))?;
                let imported = store
                    .import(archive, &image::ImportOptions::default())
                    .with_context(|| format!("cannot import {}", file.display()))?;
                for image in imported {
                    output::line(&name(&image));
                }
            }
            Ok(())
        }
        Command::Pull { images, registry_config_dir, username } => {
            let credentials = username.map(credentials).transpose()?;
            let clock: SharedClock = Arc::new(SystemClock);
            let registry = agent::registry(&registry_config_dir, &store, &clock)?;
            super::block_on(async {
                for image in images {
                    pull(&registry, &image, credentials.as_ref()).await?;
                }
                Ok(())
            })
        }
        Command::Ls => {
            let mut rows = vec![["IMAGE", "IMAGE ID", "SIZE"].map(str::to_owned).to_vec()];
            for image in store.list()? {
                let id: String = image.id.hex().chars().take(13).collect();
                rows.push(vec![name(&image), id, size(image.size)]);
            }
            output::table(&rows);
            Ok(())
        }
        Command::Rm { images } => {
            for image in images {
                let removed = store.remove(&image)?;
                anyhow::ensure!(removed, "no image {image:?}; `ironclad image ls` lists them");
            }
            Ok(())
        }
    }
}

/// The password is the first line of the input.
fn credentials(username: String) -> anyhow::Result<Credentials> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("the password cannot be read")?;
    let password = line.trim_end_matches(['\r', '\n']).to_owned();
    Ok(Credentials { username, password, ..Credentials::default() })
}

async fn pull(
    registry: &Registry,
    image: &str,
    credentials: Option<&Credentials>,
) -> anyhow::Result<()> {
    let reference = image::Reference::parse(image)?;
    let pulled = registry.pull(&reference, credentials, &report).await;
    let image = pulled.with_context(|| format!("cannot pull {reference}"))?;
    output::line(&format!("{reference} {}", image.id));
    Ok(())
}

fn report(progress: Progress) {
    let short = |digest: &image::Digest| digest.hex().chars().take(13).collect::<String>();
    output::line(&match progress {
        Progress::Resolved { digest, layers, missing, bytes } => {
            let (digest, size) = (short(&digest), size(bytes));
            format!("  {digest} {layers} layers, {missing} to download, {size}")
        }
        Progress::Downloaded { layer, bytes } => {
            format!("  {} downloaded, {}", short(&layer), size(bytes))
        }
        Progress::Unpacked { layer } => format!("  {} unpacked", short(&layer)),
        Progress::Retrying { layer, why } => format!("  {} once more: {why}", short(&layer)),
    });
}

fn name(image: &image::Image) -> String {
    if image.repo_tags.is_empty() {
        return image.repo_digests.first().cloned().unwrap_or_else(|| "<none>".to_owned());
    }
    image.repo_tags.join(", ")
}

fn size(bytes: u64) -> String {
    let mib = bytes / (1 << 20);
    if mib == 0 { format!("{} KiB", bytes >> 10) } else { format!("{mib} MiB") }
}
