//! `ironclad image import · ls · rm`

use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;

use crate::output;

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
    let store = image::Store::open(crate::agent::images_dir(&args.data_dir))
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
