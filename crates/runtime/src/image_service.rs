//! The CRI image service.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cri::{
    AuthConfig, Code, CriError, FilesystemUsage, Image, ImageFsInfo, ImageService, ImageSpec,
    PodSandboxConfig,
};
use image::{ImageError, Reference, Store};
use registry::{Credentials, PullError};

use crate::runtime::Runtime;
use crate::sandbox_ops::blocking;

type Result<T> = std::result::Result<T, CriError>;

#[async_trait]
impl ImageService for Runtime {
    async fn list_images(&self, filter: Option<&ImageSpec>) -> Result<Vec<Image>> {
        let store = self.0.deps.images.clone();
        let wanted = filter.map(|spec| spec.image.clone()).filter(|image| !image.is_empty());
        blocking(move || {
            let images = match wanted {
                Some(name) => store.find(&name).map(|found| found.into_iter().collect()),
                None => store.list(),
            };
            let images: Vec<image::Image> = images.map_err(wrap("failed to list images"))?;
            images.into_iter().map(|image| convert(&store, image)).collect()
        })
        .await
    }

    async fn image_status(&self, image: &ImageSpec) -> Result<Option<Image>> {
        let (store, name) = (self.0.deps.images.clone(), image.image.clone());
        blocking(move || {
            let found =
                store.find(&name).map_err(wrap(&format!("can not resolve {name:?} locally")))?;
            found.map(|image| convert(&store, image)).transpose()
        })
        .await
    }

    async fn pull_image(
        &self,
        image: &ImageSpec,
        auth: Option<&AuthConfig>,
        _sandbox_config: Option<&PodSandboxConfig>,
    ) -> Result<String> {
        let name = &image.image;
        let reference = Reference::parse(name)
            .map_err(wrap(&format!("failed to parse image reference {name:?}")))?;
        let credentials =
            auth.map(|auth| credentials(auth, reference.domain())).transpose()?.flatten();
        let report = |progress| tracing::debug!(image = name, ?progress, "pulling");
        let pulled = self.0.deps.registry.pull(&reference, credentials.as_ref(), &report);
        match pulled.await {
            Ok(image) => Ok(image.id.to_string()),
            Err(error) => Err(not_pulled(&reference, error)),
        }
    }

    async fn remove_image(&self, image: &ImageSpec) -> Result<()> {
        let (store, name) = (self.0.deps.images.clone(), image.image.clone());
        blocking(move || {
            store.remove(&name).map(drop).map_err(wrap(&format!("failed to remove image {name:?}")))
        })
        .await
    }

    async fn image_fs_info(&self) -> Result<ImageFsInfo> {
        let (store, now) = (self.0.deps.images.clone(), self.0.deps.clock.now());
        blocking(move || {
            let usage = store.usage().map_err(wrap("failed to measure images"))?;
            let usage = FilesystemUsage {
                timestamp: now,
                mountpoint: store.dir().to_path_buf(),
                used_bytes: usage.bytes,
                inodes_used: usage.inodes,
            };
            Ok(ImageFsInfo {
                image_filesystems: vec![usage.clone()],
                container_filesystems: vec![usage],
            })
        })
        .await
    }
}

/// What of the caller's credentials is for this registry.
fn credentials(auth: &AuthConfig, registry: &str) -> Result<Option<Credentials>> {
    let host = auth.server_address.split("://").last().unwrap_or_default();
    let host = host.split('/').next().unwrap_or_default();
    let is_hub = registry == "docker.io" && host.ends_with(".docker.io");
    if !host.is_empty() && host != registry && !is_hub {
        return Ok(None);
    }
    let mut credentials = Credentials {
        username: auth.username.clone(),
        password: auth.password.clone(),
        identity_token: auth.identity_token.clone(),
        registry_token: auth.registry_token.clone(),
    };
    if auth.username.is_empty() && !auth.auth.is_empty() {
        let bytes = STANDARD.decode(auth.auth.trim());
        let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.unwrap_or_default();
        let Some((username, password)) = text.trim_end_matches('\0').split_once(':') else {
            return Err(CriError::invalid_argument("invalid auth: no user and password in base64"));
        };
        (credentials.username, credentials.password) = (username.into(), password.into());
    }
    Ok((credentials != Credentials::default()).then_some(credentials))
}

/// In the words of containerd, since users search for them.
fn not_pulled(reference: &Reference, error: PullError) -> CriError {
    let name = reference.to_string();
    let code = match &error {
        PullError::NotFound(_) => Code::NotFound,
        _ => Code::Unknown,
    };
    let resolving = !matches!(error, PullError::Image(_) | PullError::Content { .. });
    let mut what = format!("failed to pull and unpack image {name:?}");
    if resolving {
        what.push_str(&format!(": failed to resolve reference {name:?}"));
    }
    CriError::caused(code, what, error)
}

fn wrap(what: &str) -> impl FnOnce(ImageError) -> CriError {
    let what = what.to_owned();
    move |error| {
        let code = match error {
            ImageError::InvalidReference(_) => Code::InvalidArgument,
            _ => Code::Unknown,
        };
        CriError::caused(code, what, error)
    }
}

fn convert(store: &Store, image: image::Image) -> Result<Image> {
    let config = store.config(&image).map_err(wrap("failed to get image config"))?;
    let user = config.config.user.split(':').next().unwrap_or_default().to_owned();
    let uid = user.parse().ok();
    Ok(Image {
        id: image.id.to_string(),
        repo_tags: image.repo_tags,
        repo_digests: image.repo_digests,
        size: image.size,
        username: if uid.is_some() { String::new() } else { user },
        uid,
        spec: ImageSpec::default(),
        pinned: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(server: &str, pair: &str) -> AuthConfig {
        let (server_address, auth) = (server.to_owned(), STANDARD.encode(pair));
        AuthConfig { server_address, auth, ..AuthConfig::default() }
    }

    #[test]
    fn credentials_are_for_their_own_registry_alone() {
        let user = |auth: &AuthConfig, registry| {
            credentials(auth, registry).unwrap().map(|credentials| credentials.username)
        };
        for (server, registry, is_for_it) in [
            ("", "r.example", true),
            ("r.example", "r.example", true),
            ("https://r.example/v2/", "r.example", true),
            ("https://index.docker.io/v1/", "docker.io", true),
            ("other.example", "r.example", false),
            ("evil.docker.io.example", "docker.io", false),
        ] {
            let found = user(&auth(server, "u:p:q"), registry);
            assert_eq!(found.is_some(), is_for_it, "{server} {registry}");
        }
        assert_eq!(credentials(&auth("", "u:p:q"), "r").unwrap().unwrap().password, "p:q");
        assert!(credentials(&auth("", "no colon"), "r").is_err());
        assert!(credentials(&AuthConfig::default(), "r").unwrap().is_none());
    }
}
