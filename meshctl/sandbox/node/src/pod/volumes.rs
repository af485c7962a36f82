//! Fills a Pod's volumes: ConfigMaps, Secrets, tokens, fields, empty and host folders.
//!
//! Fetches as a plain client and hands files to the keeper; refreshes what may change. Never here: mounting.
//! Called by `worker`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccount, ServiceAccountTokenProjection, Volume,
};
use kube::api::PostParams;
use kube::{Api, Client};

use super::env::{self, EnvError, Place};
use crate::keeper::wire::{self, FileEntry, HostKind, Request};
use crate::limits::{EMPTY_BYTES_MAX, MEMORY_BYTES_MAX};
use crate::link::{Link, LinkError};

const FILE_MODE: i32 = 0o644;
const TOKEN_SECONDS: i64 = 3600;
/// Files are looked at again this often.
pub(crate) const REFRESH: Duration = Duration::from_secs(10);

/// Why a volume cannot be filled (yet).
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {kind} \"{name}\" not found")]
    NoObject { volume: String, kind: &'static str, name: String },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : references non-existent {kind} key: {key}")]
    NoKey { volume: String, kind: &'static str, key: String },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    Field { volume: String, source: EnvError },
    #[error("volume \"{0}\" is of a kind that the sandbox does not have")]
    Kind(String),
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    Api { volume: String, source: kube::Error },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    Keeper { volume: String, source: LinkError },
}

/// A token and when to fetch the next.
#[derive(Clone)]
struct Token {
    text: String,
    renew_at: Timestamp,
}

/// One Pod's volumes.
pub(crate) struct Volumes {
    client: Client,
    link: Link,
    uid: String,
    namespace: String,
    tokens: BTreeMap<(String, String), Token>,
    written: BTreeMap<String, Vec<FileEntry>>,
}

/// Values of a ConfigMap or Secret.
type Values = BTreeMap<String, Vec<u8>>;

impl Volumes {
    pub(crate) fn new(client: Client, link: Link, pod: &Pod) -> Self {
        Self {
            client,
            link,
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            tokens: BTreeMap::new(),
            written: BTreeMap::new(),
        }
    }

    /// Makes every volume, or brings it up to date.
    pub(crate) async fn fill(&mut self, pod: &Pod, place: &Place) -> Result<(), VolumeError> {
        for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            self.fill_one(pod, volume, place).await?;
        }
        Ok(())
    }

    async fn fill_one(&mut self, pod: &Pod, volume: &Volume, place: &Place) -> Result<(), VolumeError> {
        let group = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.security_context.as_ref()?.fs_group)
            .and_then(|group| u32::try_from(group).ok());
        let name = &volume.name;
        if let Some(empty) = &volume.empty_dir {
            let most = if empty.medium.as_deref() == Some("Memory") { MEMORY_BYTES_MAX } else { EMPTY_BYTES_MAX };
            let bytes_max = empty.size_limit.as_ref().and_then(env::units).unwrap_or(most);
            return self.put(name, wire::Volume::Empty { bytes_max, group }).await;
        }
        if let Some(host) = &volume.host_path {
            let kind = match host.type_.as_deref() {
                Some("DirectoryOrCreate") => HostKind::FolderOrNew,
                Some("FileOrCreate") => HostKind::FileOrNew,
                None | Some(_) => HostKind::Present,
            };
            return self.put(name, wire::Volume::Host { path: PathBuf::from(&host.path), kind }).await;
        }
        let mut files = Vec::new();
        if let Some(map) = &volume.config_map {
            let optional = map.optional == Some(true);
            let values = self.config_map(name, &map.name, optional).await?;
            add(&mut files, name, "config", &values, map.items.as_deref(), map.default_mode, optional)?;
        } else if let Some(secret) = &volume.secret {
            let optional = secret.optional == Some(true);
            let values = self.secret(name, secret.secret_name.as_deref().unwrap_or_default(), optional).await?;
            add(&mut files, name, "secret", &values, secret.items.as_deref(), secret.default_mode, optional)?;
        } else if let Some(fields) = &volume.downward_api {
            let items = fields.items.as_deref().unwrap_or_default();
            add_fields(&mut files, name, pod, items, fields.default_mode, place)?;
        } else if let Some(projected) = &volume.projected {
            let mode = projected.default_mode;
            for source in projected.sources.iter().flatten() {
                if let Some(map) = &source.config_map {
                    let optional = map.optional == Some(true);
                    let values = self.config_map(name, &map.name, optional).await?;
                    add(&mut files, name, "config", &values, map.items.as_deref(), mode, optional)?;
                }
                if let Some(secret) = &source.secret {
                    let optional = secret.optional == Some(true);
                    let values = self.secret(name, &secret.name, optional).await?;
                    add(&mut files, name, "secret", &values, secret.items.as_deref(), mode, optional)?;
                }
                if let Some(fields) = &source.downward_api {
                    add_fields(&mut files, name, pod, fields.items.as_deref().unwrap_or_default(), mode, place)?;
                }
                if let Some(token) = &source.service_account_token {
                    let content = self.token(pod, name, token).await?.into_bytes();
                    files.push(FileEntry { path: token.path.clone(), content, mode: mode_of(None, mode) });
                }
                if source.cluster_trust_bundle.is_some() {
                    return Err(VolumeError::Kind(name.clone()));
                }
            }
        } else {
            return Err(VolumeError::Kind(name.clone()));
        }
        if self.written.get(name) == Some(&files) {
            return Ok(());
        }
        self.put(name, wire::Volume::Files { files: files.clone(), group }).await?;
        self.written.insert(name.clone(), files);
        Ok(())
    }

    async fn put(&self, name: &str, content: wire::Volume) -> Result<(), VolumeError> {
        let request = Request::Volume { pod: self.uid.clone(), name: name.to_owned(), content };
        let answer = self.link.ask(request, Vec::new()).await;
        answer.map(drop).map_err(|source| VolumeError::Keeper { volume: name.to_owned(), source })
    }

    async fn config_map(&self, volume: &str, name: &str, optional: bool) -> Result<Values, VolumeError> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = maps.get_opt(name).await.map_err(|source| api(volume, source))?;
        match found {
            Some(map) => {
                let texts = map.data.into_iter().flatten().map(|(key, text)| (key, text.into_bytes()));
                Ok(texts.chain(map.binary_data.into_iter().flatten().map(|(key, bytes)| (key, bytes.0))).collect())
            }
            None if optional => Ok(Values::new()),
            None => Err(no_object(volume, "configmap", name)),
        }
    }

    async fn secret(&self, volume: &str, name: &str, optional: bool) -> Result<Values, VolumeError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = secrets.get_opt(name).await.map_err(|source| api(volume, source))?;
        match found {
            Some(secret) => Ok(secret.data.into_iter().flatten().map(|(key, bytes)| (key, bytes.0)).collect()),
            None if optional => Ok(Values::new()),
            None => Err(no_object(volume, "secret", name)),
        }
    }

    async fn token(
        &mut self,
        pod: &Pod,
        volume: &str,
        wanted: &ServiceAccountTokenProjection,
    ) -> Result<String, VolumeError> {
        let key = (volume.to_owned(), wanted.path.clone());
        let now = Timestamp::now();
        if let Some(token) = self.tokens.get(&key)
            && now < token.renew_at
        {
            return Ok(token.text.clone());
        }
        let seconds = wanted.expiration_seconds.unwrap_or(TOKEN_SECONDS);
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: wanted.audience.iter().cloned().collect(),
                expiration_seconds: Some(seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
            },
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.namespace);
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
        let status = answer.map_err(|source| api(volume, source))?.status;
        let status = status.ok_or_else(|| no_object(volume, "serviceaccount", account))?;
        let life = status.expiration_timestamp.0.as_second() - now.as_second();
        let renew_at = Timestamp::from_second(now.as_second() + life * 8 / 10).unwrap_or(now);
        self.tokens.insert(key, Token { text: status.token.clone(), renew_at });
        Ok(status.token)
    }
}

fn api(volume: &str, source: kube::Error) -> VolumeError {
    VolumeError::Api { volume: volume.to_owned(), source }
}

fn no_object(volume: &str, kind: &'static str, name: &str) -> VolumeError {
    VolumeError::NoObject { volume: volume.to_owned(), kind, name: name.to_owned() }
}

fn mode_of(own: Option<i32>, default: Option<i32>) -> u32 {
    u32::try_from(own.or(default).unwrap_or(FILE_MODE)).unwrap_or_default()
}

/// Adds all values, or the chosen ones under their paths.
fn add(
    files: &mut Vec<FileEntry>,
    volume: &str,
    kind: &'static str,
    values: &Values,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
    optional: bool,
) -> Result<(), VolumeError> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        files.extend(values.iter().map(|(key, content)| FileEntry {
            path: key.clone(),
            content: content.clone(),
            mode: mode_of(None, mode),
        }));
        return Ok(());
    };
    for item in items {
        match values.get(&item.key) {
            Some(content) => files.push(FileEntry {
                path: item.path.clone(),
                content: content.clone(),
                mode: mode_of(item.mode, mode),
            }),
            None if optional => {}
            None => {
                return Err(VolumeError::NoKey { volume: volume.to_owned(), kind, key: item.key.clone() });
            }
        }
    }
    Ok(())
}

fn add_fields(
    files: &mut Vec<FileEntry>,
    volume: &str,
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    mode: Option<i32>,
    place: &Place,
) -> Result<(), VolumeError> {
    for item in items {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => env::field_value(pod, field, place),
            (None, Some(resource)) => {
                let spec = pod.spec.as_ref();
                let named = spec.and_then(|spec| {
                    spec.containers.iter().find(|found| Some(&found.name) == resource.container_name.as_ref())
                });
                named.map_or_else(
                    || Err(EnvError::Resource(resource.resource.clone())),
                    |container| env::resource_value(pod, container, resource, place),
                )
            }
            (None, None) => continue,
        };
        let content = value.map_err(|source| VolumeError::Field { volume: volume.to_owned(), source })?.into_bytes();
        files.push(FileEntry { path: item.path.clone(), content, mode: mode_of(item.mode, mode) });
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "cases read better")]
mod tests {
    use super::*;

    fn check(items: Option<Vec<KeyToPath>>, optional: bool) -> Result<Vec<String>, VolumeError> {
        let values = Values::from([("a".to_owned(), vec![1]), ("b".to_owned(), vec![2])]);
        let mut files = Vec::new();
        add(&mut files, "v", "config", &values, items.as_deref(), None, optional)?;
        Ok(files.into_iter().map(|file| file.path).collect())
    }

    fn item(key: &str) -> Option<Vec<KeyToPath>> {
        Some(vec![KeyToPath { key: key.to_owned(), path: format!("d/{key}"), mode: None }])
    }

    #[test]
    fn without_items_all_keys_are_files() {
        assert_eq!(check(None, false).unwrap(), ["a", "b"]);
    }

    #[test]
    fn items_choose_and_name() {
        assert_eq!(check(item("b"), false).unwrap(), ["d/b"]);
    }

    #[test]
    fn a_missing_key_is_an_error_unless_optional() {
        assert!(check(item("c"), false).is_err());
        assert!(check(item("c"), true).unwrap().is_empty());
    }
}
