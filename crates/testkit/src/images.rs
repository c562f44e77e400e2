//! Images that tests build on the spot.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// An image under construction.
pub struct ImageBuilder {
    name: String,
    below: Vec<Vec<u8>>,
    layer: tar::Builder<Vec<u8>>,
    directories: BTreeSet<PathBuf>,
    config: String,
}

impl ImageBuilder {
    /// An image with this name, `repository:tag`, that runs `entrypoint`.
    pub fn new(name: &str, entrypoint: &[&str]) -> Self {
        let words: Vec<String> = entrypoint.iter().map(|word| format!("{word:?}")).collect();
        Self {
            name: name.to_owned(),
            below: Vec::new(),
            layer: tar::Builder::new(Vec::new()),
            directories: BTreeSet::new(),
            config: format!(
                r#"{{"Entrypoint":[{}],"Env":["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}}"#,
                words.join(",")
            ),
        }
    }

    /// Adds a file of this machine, following links, with its mode.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file(&mut self, from: &Path, to: &str) -> anyhow::Result<&mut Self> {
        self.parents(Path::new(to))?;
        self.layer
            .append_path_with_name(from.canonicalize()?, to.trim_start_matches('/'))
            .with_context(|| format!("cannot add {}", from.display()))?;
        Ok(self)
    }

    /// Adds a file with this text.
    ///
    /// # Errors
    /// Never in practice: the archive is in memory.
    pub fn text(&mut self, to: &str, text: &str) -> anyhow::Result<&mut Self> {
        self.parents(Path::new(to))?;
        append(&mut self.layer, to.trim_start_matches('/'), text.as_bytes())?;
        Ok(self)
    }

    /// Adds an empty directory.
    ///
    /// # Errors
    /// Never in practice: the archive is in memory.
    pub fn directory(&mut self, to: &str) -> anyhow::Result<&mut Self> {
        // The ancestors of anything in it.
        self.parents(&Path::new(to).join("entry"))?;
        Ok(self)
    }

    /// Adds the shared libraries that a process has loaded, at the paths where it has them, and
    /// the loader where programs look for it.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn libraries_of(&mut self, pid: &str) -> anyhow::Result<&mut Self> {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let files: BTreeSet<&str> = maps
            .lines()
            .filter_map(|line| line.split_whitespace().nth(5))
            .filter(|path| path.contains(".so"))
            .collect();
        for file in files {
            self.file(Path::new(file), file)?;
            let name = Path::new(file).file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("ld-linux") && !file.starts_with("/lib64") {
                self.file(Path::new(file), &format!("/lib64/{name}"))?;
            }
        }
        Ok(self)
    }

    /// What is added from now on is in another layer, on top.
    ///
    /// # Errors
    /// Never in practice: the archive is in memory.
    pub fn next_layer(&mut self) -> anyhow::Result<&mut Self> {
        let layer = std::mem::replace(&mut self.layer, tar::Builder::new(Vec::new()));
        self.below.push(layer.into_inner()?);
        Ok(self)
    }

    /// The configuration, and the layers from the lowest on.
    ///
    /// # Errors
    /// Never in practice: the archive is in memory.
    pub fn parts(self) -> anyhow::Result<(Vec<u8>, Vec<Vec<u8>>)> {
        let mut layers = self.below;
        layers.push(self.layer.into_inner()?);
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let digests = layers.iter().map(|layer| format!("\"{}\"", image::Digest::of(layer)));
        let digests: Vec<String> = digests.collect();
        let config = format!(
            r#"{{"architecture":"{architecture}","os":"linux","config":{},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            self.config,
            digests.join(",")
        );
        Ok((config.into_bytes(), layers))
    }

    /// The archive.
    ///
    /// # Errors
    /// Never in practice: the archive is in memory.
    pub fn build(self) -> anyhow::Result<Vec<u8>> {
        let name = self.name.clone();
        let (config, layers) = self.parts()?;
        let names: Vec<String> = (0..layers.len()).map(|n| format!("layer-{n}.tar")).collect();
        let manifest =
            format!(r#"[{{"Config":"config.json","RepoTags":["{name}"],"Layers":{names:?}}}]"#);
        let mut archive = tar::Builder::new(Vec::new());
        for (name, layer) in names.iter().zip(&layers) {
            append(&mut archive, name, layer)?;
        }
        append(&mut archive, "config.json", &config)?;
        append(&mut archive, "manifest.json", manifest.as_bytes())?;
        Ok(archive.into_inner()?)
    }

    fn parents(&mut self, path: &Path) -> anyhow::Result<()> {
        let ancestors: Vec<PathBuf> = path.ancestors().skip(1).map(Path::to_path_buf).collect();
        for directory in ancestors.iter().rev() {
            let name = directory.to_string_lossy().trim_matches('/').to_owned();
            if name.is_empty() || !self.directories.insert(directory.clone()) {
                continue;
            }
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(if name == "tmp" { 0o1777 } else { 0o755 });
            header.set_size(0);
            self.layer.append_data(&mut header, format!("{name}/"), std::io::empty())?;
        }
        Ok(())
    }
}

fn append(archive: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, bytes)?;
    Ok(())
}
