//! The CRI image service.

use async_trait::async_trait;
use cri::{
    AuthConfig, Code, CriError, FilesystemUsage, Image, ImageFsInfo, ImageService, ImageSpec,
    PodSandboxConfig,
};
use image::{ImageError, Reference, Store};

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
        _auth: Option<&AuthConfig>,
        _sandbox_config: Option<&PodSandboxConfig>,
    ) -> Result<String> {
        let (store, name) = (self.0.deps.images.clone(), image.image.clone());
        blocking(move || {
            let reference = Reference::parse(&name)
                .map_err(wrap(&format!("failed to parse image reference {name:?}")))?
                .to_string();
            let found = store.find(&name).map_err(wrap("failed to look up image"))?;
            found.map(|image| image.id.to_string()).ok_or_else(|| {
                CriError::not_found(format!(
                    "failed to pull and unpack image {reference:?}: failed to resolve reference \
                     {reference:?}: the image was not imported and no registry is configured: \
                     not found"
                ))
            })
        })
        .await
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
