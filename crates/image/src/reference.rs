//! Names of images: `nginx`, `registry:5000/a/b:tag`, `name@sha256:…`.

use std::fmt;

use crate::{Digest, ImageError};

const DEFAULT_DOMAIN: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
/// Upstream's limit on the length of a repository with its domain.
const NAME_LENGTH_MAX: usize = 255;
/// Upstream's limit on the length of a tag.
const TAG_LENGTH_MAX: usize = 128;

/// A name of an image in its full form: a short name got its domain, path and tag.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Normalises what a user wrote.
    ///
    /// # Errors
    /// When the form is not that of a reference.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let invalid = || ImageError::InvalidReference(text.to_owned());
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest).map_err(|_| invalid())?)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid());
        }
        let repository = full_repository(name).ok_or_else(invalid)?;
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_TAG.to_owned()),
        };
        Ok(Self { repository, tag, digest })
    }

    /// Domain and path.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The registry's host, with its port if there is one.
    pub fn domain(&self) -> &str {
        self.repository.split_once('/').map_or("", |(domain, _)| domain)
    }

    /// The repository within its registry.
    pub fn path(&self) -> &str {
        self.repository.split_once('/').map_or("", |(_, path)| path)
    }

    /// The digest, when the reference has one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The tag, when the reference has one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The same repository, pinned to a digest.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { repository: self.repository.clone(), tag: None, digest: Some(digest) }
    }
}

fn full_repository(name: &str) -> Option<String> {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest)) if is_domain(first) => (first, rest.to_owned()),
        Some(_) => (DEFAULT_DOMAIN, name.to_owned()),
        None => (DEFAULT_DOMAIN, format!("library/{name}")),
    };
    let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
    let path = if domain == DEFAULT_DOMAIN && !path.contains('/') {
        format!("library/{path}")
    } else {
        path
    };
    let full = format!("{domain}/{path}");
    (path.split('/').all(is_path_component) && full.len() <= NAME_LENGTH_MAX).then_some(full)
}

/// The first part is a domain when it cannot be part of a path.
fn is_domain(first: &str) -> bool {
    let (host, port) = match first.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (first, None),
    };
    let looks_like_domain = first == "localhost"
        || first.contains('.')
        || first.contains(':')
        || first.chars().any(|c| c.is_ascii_uppercase());
    looks_like_domain
        && !host.is_empty()
        && host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Lower-case letters and digits, separated by `.`, `_`, `__` or dashes.
fn is_path_component(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(|b| alphanumeric(*b));
    ends(bytes.first())
        && ends(bytes.last())
        && bytes
            .split(|b| alphanumeric(*b))
            .all(|gap| matches!(gap, b"" | b"." | b"_" | b"__") || gap.iter().all(|b| *b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    tag.len() <= TAG_LENGTH_MAX
        && tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_upstream_completes_them() {
        for (given, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("a/b", "docker.io/a/b:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/a/b", "docker.io/a/b:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("host:5000/a/b__c:v1", "host:5000/a/b__c:v1"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
        ] {
            assert_eq!(Reference::parse(given).unwrap().to_string(), full);
        }
        let digest = Digest::of(b"x");
        let pinned = Reference::parse(&format!("nginx:1@{digest}")).unwrap();
        assert_eq!(pinned.to_string(), format!("docker.io/library/nginx:1@{digest}"));
        assert_eq!(pinned.pinned(digest.clone()).tag(), None);
        assert_eq!(Reference::parse(&format!("nginx@{digest}")).unwrap().tag(), None);
    }

    #[test]
    fn malformed_names_are_refused() {
        for bad in
            ["", "Nginx", "a//b", "a/", "nginx:", "nginx:-x", "a@sha256:12", "a b", "../x", "-a"]
        {
            let error = Reference::parse(bad).unwrap_err().to_string();
            assert!(error.starts_with("invalid reference format"), "{bad}: {error}");
        }
    }
}
