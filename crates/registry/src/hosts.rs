//! The hosts that stand for a registry, as containerd's `certs.d` directories describe them.
//!
//! ```text
//! <directory>/registry.example_5000_/hosts.toml     or registry.example:5000, or _default
//!
//! server = "https://registry.example:5000"
//! [host."https://mirror.example"]
//! capabilities = ["pull", "resolve"]
//! ```
//!
//! Hosts are tried in the order of the file, and the server last.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Uri};
use serde::Deserialize;
use toml::{Table, Value};

use crate::tls::TlsSettings;

/// Where Docker Hub's registry is: not where its name says.
const DOCKER_HUB: &str = "registry-1.docker.io";
/// How long a connection may take to be made: containerd's default.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// A longer file is no configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// More are no mirrors.
const HOSTS_MAX: usize = 64;

/// The directory with a subdirectory for each registry that needs one. It is read for each pull,
/// so changes count at once.
#[derive(Clone, Debug, Default)]
pub struct HostsDirectory(Option<PathBuf>);

/// Why the configuration of a registry cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    /// It cannot be read.
    #[error("{}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It is no TOML.
    #[error("{}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A setting cannot be understood.
    #[error("{}: {problem}", path.display())]
    Setting {
        /// The file.
        path: PathBuf,
        /// Which, and why not.
        problem: String,
    },
}

/// A host that stands for a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) scheme: Scheme,
    pub(crate) authority: Authority,
    /// What comes before the repository: `/v2`, or something in front of it, or instead of it.
    pub(crate) prefix: String,
    /// Whether it says what a tag means.
    pub(crate) resolve: bool,
    /// Whether it has content by digest.
    pub(crate) pull: bool,
    pub(crate) tls: TlsSettings,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) dial_timeout: Duration,
    /// Whether it is the registry itself, to which credentials belong.
    pub(crate) is_registry: bool,
    /// For which registry, when it is another one's mirror.
    pub(crate) namespace: Option<String>,
}

impl HostsDirectory {
    /// In this directory, which need not exist.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self(Some(directory.into()))
    }

    /// The hosts for a registry, in the order in which to try them.
    pub(crate) fn hosts(&self, domain: &str) -> Result<Vec<Host>, HostsError> {
        let Some(directory) = self.of(domain) else { return Ok(vec![Host::usual(domain)]) };
        let path = directory.join("hosts.toml");
        if path.exists() {
            return File { directory: &directory, path: &path, domain }.read();
        }
        let mut host = Host::usual(domain);
        host.tls = certificates_in(&directory)?;
        Ok(vec![host])
    }

    fn of(&self, domain: &str) -> Option<PathBuf> {
        let root = self.0.as_deref()?;
        let mut names = Vec::new();
        if let Some((host, port)) = domain.rsplit_once(':') {
            names.push(format!("{host}_{port}_"));
        }
        names.extend([domain.to_owned(), "_default".to_owned()]);
        names.into_iter().map(|name| root.join(name)).find(|path| path.is_dir())
    }
}

impl Host {
    /// The registry at its own address: with TLS, unless it is on this machine.
    pub(crate) fn usual(domain: &str) -> Self {
        let name = if domain == "docker.io" { DOCKER_HUB } else { domain };
        let scheme = if is_loopback(name) { Scheme::HTTP } else { Scheme::HTTPS };
        Self {
            scheme,
            // A reference's domain is an authority.
            authority: Authority::try_from(name)
                .unwrap_or_else(|_| Authority::from_static("invalid")),
            prefix: "/v2".to_owned(),
            resolve: true,
            pull: true,
            tls: TlsSettings::default(),
            headers: Vec::new(),
            dial_timeout: DIAL_TIMEOUT,
            is_registry: true,
            namespace: None,
        }
    }

    /// The address of something of a repository.
    pub(crate) fn url(
        &self,
        repository: &str,
        what: &str,
        reference: &str,
    ) -> Result<Uri, http::Error> {
        let mut path = format!("{}/{repository}/{what}/{reference}", self.prefix);
        if let Some(namespace) = &self.namespace {
            path.push_str("?ns=");
            path.push_str(&encode(namespace));
        }
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(PathAndQuery::try_from(path)?)
            .build()
    }
}

/// For a query.
pub(crate) fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            // Writing to a String cannot fail.
            _ => write!(encoded, "%{byte:02X}").unwrap_or_default(),
        }
        encoded
    })
}

/// Whether a registry is on this machine and has not said that it wants TLS.
fn is_loopback(domain: &str) -> bool {
    let (host, port) = domain.rsplit_once(':').unwrap_or((domain, ""));
    let address = host.parse::<std::net::IpAddr>();
    port != "443" && (host == "localhost" || address.is_ok_and(|address| address.is_loopback()))
}

/// One `hosts.toml`.
struct File<'a> {
    directory: &'a Path,
    path: &'a Path,
    domain: &'a str,
}

/// What can be said of a host. Names are those of containerd.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    client: Option<Client>,
    skip_verify: Option<bool>,
    header: Option<std::collections::BTreeMap<String, OneOrMany>>,
    override_path: Option<bool>,
    dial_timeout: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Client {
    Both(String),
    Many(Vec<OneOrMany>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

impl File<'_> {
    fn read(&self) -> Result<Vec<Host>, HostsError> {
        let read = |source| HostsError::Read { path: self.path.to_path_buf(), source };
        let length = std::fs::metadata(self.path).map_err(read)?.len();
        if length > FILE_BYTES_MAX {
            return Err(self.problem(format!("is longer than {FILE_BYTES_MAX} bytes")));
        }
        let text = std::fs::read_to_string(self.path).map_err(read)?;
        let mut table: Table = text.parse().map_err(|source| self.parse(source))?;
        let server = match table.remove("server") {
            None => None,
            Some(Value::String(server)) => Some(server),
            Some(_) => return Err(self.problem("server is no text")),
        };
        let mirrors = match table.remove("host") {
            None => Table::new(),
            Some(Value::Table(mirrors)) => mirrors,
            Some(_) => return Err(self.problem("host is no table")),
        };
        if mirrors.len() > HOSTS_MAX {
            return Err(self.problem(format!("has more than {HOSTS_MAX} hosts")));
        }
        let usual = Host::usual(self.domain);
        let mut hosts = Vec::new();
        for (url, settings) in mirrors {
            let mut host = self.host(&url, self.settings(settings)?)?;
            host.is_registry = host.authority == usual.authority;
            hosts.push(host);
        }
        let settings = self.settings(Value::Table(table))?;
        let url = server.unwrap_or_else(|| format!("{}://{}", usual.scheme, usual.authority));
        let mut registry = self.host(&url, settings)?;
        // Whoever wrote the file says where the registry is.
        registry.is_registry = true;
        hosts.push(registry);
        Ok(hosts)
    }

    fn settings(&self, value: Value) -> Result<Settings, HostsError> {
        value.try_into().map_err(|source| self.parse(source))
    }

    fn host(&self, url: &str, settings: Settings) -> Result<Host, HostsError> {
        let whole = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
        let bad = || self.problem(format!("{url:?} is no address of a host"));
        let parts = whole.parse::<Uri>().map_err(|_| bad())?.into_parts();
        let scheme = parts.scheme.filter(|s| *s == Scheme::HTTP || *s == Scheme::HTTPS);
        let authority = parts.authority.ok_or_else(bad)?;
        let path = parts.path_and_query.map(|path| path.path().to_owned()).unwrap_or_default();
        let path = path.trim_end_matches('/');
        let prefix = match settings.override_path {
            Some(true) => path.to_owned(),
            _ if path.ends_with("/v2") => path.to_owned(),
            _ => format!("{path}/v2"),
        };
        let can = |what: &str| match &settings.capabilities {
            Some(capabilities) => capabilities.iter().any(|capability| capability == what),
            None => true,
        };
        for capability in settings.capabilities.iter().flatten() {
            if !["pull", "resolve", "push"].contains(&capability.as_str()) {
                return Err(self.problem(format!("unknown capability {capability:?}")));
            }
        }
        let usual = Host::usual(self.domain);
        let namespace = (authority != usual.authority).then(|| self.domain.to_owned());
        Ok(Host {
            scheme: scheme.ok_or_else(bad)?,
            authority,
            prefix,
            resolve: can("resolve"),
            pull: can("pull"),
            headers: self.headers(settings.header.unwrap_or_default())?,
            dial_timeout: match &settings.dial_timeout {
                None => DIAL_TIMEOUT,
                Some(text) => duration(text)
                    .ok_or_else(|| self.problem(format!("{text:?} is no duration")))?,
            },
            tls: TlsSettings {
                authorities: settings
                    .ca
                    .map(OneOrMany::into_vec)
                    .unwrap_or_default()
                    .into_iter()
                    .map(|file| self.directory.join(file))
                    .collect(),
                certificate: settings.client.map(|client| self.client(client)).transpose()?,
                skip_verify: settings.skip_verify.unwrap_or(false),
            },
            is_registry: false,
            namespace,
        })
    }

    fn headers(
        &self,
        settings: std::collections::BTreeMap<String, OneOrMany>,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, HostsError> {
        let mut headers = Vec::new();
        for (name, values) in settings {
            for value in values.into_vec() {
                let bad = || self.problem(format!("header {name:?} cannot be sent"));
                let mut value = HeaderValue::try_from(value).map_err(|_| bad())?;
                // It may be a secret.
                value.set_sensitive(true);
                headers.push((HeaderName::try_from(name.as_str()).map_err(|_| bad())?, value));
            }
        }
        Ok(headers)
    }

    fn client(&self, client: Client) -> Result<(PathBuf, PathBuf), HostsError> {
        let (certificate, key) = match client {
            Client::Both(file) => (file.clone(), file),
            Client::Many(pairs) => {
                let mut pairs = pairs.into_iter().map(OneOrMany::into_vec);
                let (Some(pair), None) = (pairs.next(), pairs.next()) else {
                    return Err(self.problem("client has more than one certificate, or none"));
                };
                match <[String; 2]>::try_from(pair) {
                    Ok([certificate, key]) if !key.is_empty() => (certificate, key),
                    Ok([certificate, _]) => (certificate.clone(), certificate),
                    Err(files) => match files.as_slice() {
                        [file] => (file.clone(), file.clone()),
                        _ => return Err(self.problem("client is no pair of files")),
                    },
                }
            }
        };
        Ok((self.directory.join(certificate), self.directory.join(key)))
    }

    fn parse(&self, source: toml::de::Error) -> HostsError {
        HostsError::Parse { path: self.path.to_path_buf(), source: Box::new(source) }
    }

    fn problem(&self, problem: impl Into<String>) -> HostsError {
        HostsError::Setting { path: self.path.to_path_buf(), problem: problem.into() }
    }
}

/// A number with one unit, as configurations have them.
fn duration(text: &str) -> Option<Duration> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000)];
    let (number, millis) =
        units.iter().find_map(|(unit, millis)| Some((text.strip_suffix(unit)?, *millis)))?;
    Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(millis)?))
}

/// Docker's layout: authorities in `*.crt`, a certificate in `*.cert` and its key in `*.key`.
fn certificates_in(directory: &Path) -> Result<TlsSettings, HostsError> {
    let read = |source| HostsError::Read { path: directory.to_path_buf(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(read)?.take(HOSTS_MAX) {
        files.push(entry.map_err(read)?.path());
    }
    files.sort();
    let of = |extension: &str| {
        let found = files.iter().filter(|file| file.extension().is_some_and(|e| e == extension));
        found.cloned().collect::<Vec<_>>()
    };
    let certificate = of("cert").into_iter().next();
    Ok(TlsSettings {
        authorities: of("crt"),
        certificate: certificate.map(|file| (file.clone(), file.with_extension("key"))),
        skip_verify: false,
    })
}

#[cfg(test)]
mod tests;
