//! The files of configMap, secret, downwardAPI and projected volumes.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Node, Pod, PodCertificateProjection, Secret,
    VolumeProjection,
};

use crate::pod::fields::{self, Surroundings};
use crate::pod::spec;
use crate::volume::atomic_writer::{File, Payload};
use crate::volume::objects::Objects;
use crate::volume::pod_certificates::{Bundle, PodCertificates};
use crate::volume::tokens::Tokens;
use crate::volume::trust_bundles::TrustBundles;

/// The mode of files when the volume gives none.
const MODE_DEFAULT: i32 = 0o644;

/// Where files come from.
pub(crate) struct Sources<'a> {
    pub(crate) config_maps: &'a Objects<ConfigMap>,
    pub(crate) secrets: &'a Objects<Secret>,
    pub(crate) tokens: &'a Tokens,
    pub(crate) bundles: &'a TrustBundles,
    pub(crate) certificates: &'a PodCertificates,
    pub(crate) node: Option<&'a Node>,
    pub(crate) around: &'a Surroundings<'a>,
}

/// Files, and when they must be looked at again whatever happens.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pub(crate) payload: Payload,
    pub(crate) refresh_at: Option<Timestamp>,
}

impl Files {
    fn refresh_soon(&mut self, at: Timestamp) {
        self.refresh_at = Some(self.refresh_at.map_or(at, |other| other.min(at)));
    }
}

/// One object's keys as files.
pub(crate) struct Selection<'a> {
    pub(crate) name: &'a str,
    pub(crate) items: Option<&'a [KeyToPath]>,
    pub(crate) mode: Option<i32>,
    pub(crate) optional: bool,
}

impl Sources<'_> {
    /// Files of a ConfigMap; the error is the end of a `FailedMount` event.
    pub(crate) async fn config_map(
        &self,
        pod: &Pod,
        selection: &Selection<'_>,
        payload: &mut Payload,
    ) -> Result<(), String> {
        let namespace = spec::namespace(pod);
        let found = self.config_maps.get(namespace, selection.name, spec::uid(pod)).await;
        let Some(object) = found.map_err(|error| error.to_string())? else {
            return absent("configmap", selection);
        };
        let text = object.data.iter().flatten().map(|(k, v)| (k.as_str(), v.as_bytes()));
        let binary = object.binary_data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.as_slice()));
        let data = text.chain(binary).collect();
        select(data, selection, "configmap references non-existent config key", payload)
    }

    /// Files of a Secret.
    pub(crate) async fn secret(
        &self,
        pod: &Pod,
        selection: &Selection<'_>,
        payload: &mut Payload,
    ) -> Result<(), String> {
        let namespace = spec::namespace(pod);
        let found = self.secrets.get(namespace, selection.name, spec::uid(pod)).await;
        let Some(object) = found.map_err(|error| error.to_string())? else {
            return absent("secret", selection);
        };
        let data = object.data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.as_slice()));
        select(data.collect(), selection, "references non-existent secret key", payload)
    }

    /// Files of the downward API.
    pub(crate) fn downward_api(
        &self,
        pod: &Pod,
        items: &[DownwardAPIVolumeFile],
        default_mode: Option<i32>,
        payload: &mut Payload,
    ) -> Result<(), String> {
        for item in items {
            let text = if let Some(field) = &item.field_ref {
                fields::field(pod, &field.field_path, self.around)?
            } else if let Some(resource) = &item.resource_field_ref {
                fields::resource(pod, None, resource, self.around)?
            } else {
                continue;
            };
            let file =
                File { data: text.into_bytes(), mode: mode(item.mode, default_mode), user: None };
            payload.insert(item.path.clone(), file);
        }
        Ok(())
    }

    /// Files of a projected volume.
    pub(crate) async fn projected(
        &self,
        pod: &Pod,
        (volume, default_mode): (&str, Option<i32>),
        sources: &[VolumeProjection],
        owner: Owner,
    ) -> Result<Files, String> {
        let mut files = Files::default();
        for (at, source) in sources.iter().enumerate() {
            let payload = &mut files.payload;
            if let Some(from) = &source.config_map {
                let selection = Selection {
                    name: &from.name,
                    items: from.items.as_deref(),
                    mode: default_mode,
                    optional: from.optional == Some(true),
                };
                self.config_map(pod, &selection, payload).await?;
            } else if let Some(from) = &source.secret {
                let selection = Selection {
                    name: &from.name,
                    items: from.items.as_deref(),
                    mode: default_mode,
                    optional: from.optional == Some(true),
                };
                self.secret(pod, &selection, payload).await?;
            } else if let Some(from) = &source.downward_api {
                let items = from.items.as_deref().unwrap_or_default();
                self.downward_api(pod, items, default_mode, payload)?;
            } else if let Some(from) = &source.service_account_token {
                let (token, refresh_at) = self.tokens.get(pod, from).await.map_err(|error| {
                    format!("failed to fetch token: {}", telemetry::Chain(&error))
                })?;
                let mode = mode_of(owner, default_mode);
                let file = File { data: token.into_bytes(), mode, user: owner.user };
                payload.insert(from.path.clone(), file);
                files.refresh_soon(refresh_at);
            } else if let Some(from) = &source.cluster_trust_bundle {
                let pem = self.bundles.get(spec::uid(pod), from).await?;
                let file =
                    File { data: pem.into_bytes(), mode: mode(None, default_mode), user: None };
                payload.insert(from.path.clone(), file);
            } else if let Some(from) = &source.pod_certificate {
                let bundle = self.certificates.get(pod, self.node, (volume, at), from).await?;
                add_certificate(&bundle, from, mode_of(owner, default_mode), owner, payload);
                files.refresh_soon(bundle.refresh_at);
            } else {
                return Err("projected volume source unknown is not supported".to_owned());
            }
        }
        Ok(files)
    }
}

/// Who a volume's files belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The user all containers run as, when they agree.
    pub(crate) user: Option<u32>,
    /// `fsGroup`.
    pub(crate) group: Option<u32>,
}

/// The mode of what only the pod's user may read, when it is known.
fn mode_of(owner: Owner, default_mode: Option<i32>) -> u32 {
    let restricted = owner.user.is_some() || owner.group.is_some();
    if restricted { 0o600 } else { mode(None, default_mode) }
}

fn add_certificate(
    bundle: &Bundle,
    from: &PodCertificateProjection,
    mode: u32,
    owner: Owner,
    payload: &mut Payload,
) {
    let both = format!("{}{}", bundle.key, bundle.chain);
    for (path, text) in [
        (&from.credential_bundle_path, &both),
        (&from.key_path, &bundle.key),
        (&from.certificate_chain_path, &bundle.chain),
    ] {
        if let Some(path) = path.as_ref().filter(|path| !path.is_empty()) {
            let data = text.clone().into_bytes();
            payload.insert(path.clone(), File { data, mode, user: owner.user });
        }
    }
}

fn absent(kind: &str, selection: &Selection<'_>) -> Result<(), String> {
    if selection.optional {
        return Ok(());
    }
    Err(format!("{kind} {:?} not found", selection.name))
}

fn mode(item: Option<i32>, default: Option<i32>) -> u32 {
    u32::try_from(item.or(default).unwrap_or(MODE_DEFAULT)).unwrap_or(0o644)
}

fn select(
    data: Vec<(&str, &[u8])>,
    selection: &Selection<'_>,
    missing: &str,
    payload: &mut Payload,
) -> Result<(), String> {
    let file = |bytes: &[u8], item: Option<i32>| File {
        data: bytes.to_vec(),
        mode: mode(item, selection.mode),
        user: None,
    };
    let Some(items) = selection.items.filter(|items| !items.is_empty()) else {
        payload.extend(data.into_iter().map(|(key, bytes)| (key.to_owned(), file(bytes, None))));
        return Ok(());
    };
    for item in items {
        match data.iter().find(|(key, _)| *key == item.key) {
            Some((_, bytes)) => {
                payload.insert(item.path.clone(), file(bytes, item.mode));
            }
            None if selection.optional => {}
            None => return Err(format!("{missing}: {}", item.key)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_files_with_their_modes() {
        let data: Vec<(&str, &[u8])> = vec![("a", b"1"), ("b", b"2")];
        let items = [KeyToPath { key: "b".into(), mode: Some(0o400), path: "x/y".into() }];
        let mut selection =
            Selection { name: "c", items: None, mode: Some(0o600), optional: false };
        let mut payload = Payload::new();
        select(data.clone(), &selection, "no", &mut payload).unwrap();
        assert_eq!(payload.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(payload["a"].mode, 0o600);
        selection.items = Some(&items);
        let mut payload = Payload::new();
        select(data, &selection, "no", &mut payload).unwrap();
        assert_eq!(payload["x/y"], File { data: b"2".to_vec(), mode: 0o400, user: None });
        let error = select(Vec::new(), &selection, "no such key", &mut payload).unwrap_err();
        assert_eq!(error, "no such key: b");
        assert_eq!(absent("secret", &selection).unwrap_err(), "secret \"c\" not found");
    }
}
