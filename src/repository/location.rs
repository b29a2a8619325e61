//! Where a repository is: a URL or path and StarRocks' property keys, turned into an object store.

mod keys;
mod stores;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use url::Url;

use self::keys::{
    ACCESS_KEY, AUTHORITY, AZURE_ACCOUNT, AZURE_CLIENT, AZURE_CLIENT_ENDPOINT, AZURE_CLIENT_SECRET,
    AZURE_ENDPOINT, AZURE_KEY, AZURE_SAS, CONDITIONAL_PUT, ENDPOINT, GCS_EMAIL, GCS_KEY,
    GCS_KEY_PATH, GCS_PRIVATE_KEY, REGION, SECRET_KEY,
};
pub use self::keys::{CONDITIONAL_PUT_KEY, ENCRYPTION, ENCRYPTION_KEY, MAX_BYTES_PER_SECOND_KEY};
pub(super) use super::uploads::Store;
use crate::error::{Error, ErrorKind};

/// A location as CREATE REPOSITORY gives it. Debug leaves the properties out: secrets are among
/// them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Location {
    /// A URL or an absolute path.
    pub url: String,
    /// Storage properties.
    pub properties: BTreeMap<String, String>,
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Location")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidParameter, message)
}

const SCHEMES: &str =
    "Use an absolute path, or file, s3, s3a, oss, cosn, obs, gs, az, abfs, abfss, wasb or wasbs.";

/// A URL as a message may have it: without a user's name and password, and without parameters.
fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = match host.rsplit_once('@') {
        Some((user, host)) if user.contains(':') => format!("***@{host}"),
        _ => host.to_owned(),
    };
    if scheme.is_empty() {
        format!("{host}{path}")
    } else {
        format!("{scheme}://{host}{path}")
    }
}

/// Checks the form of a location without touching it. A URL with a password in it is refused: it
/// would be shown.
pub fn check_location(url: &str) -> Result<(), Error> {
    if url.starts_with('/') {
        return Ok(());
    }
    let shown = without_secrets(url);
    let parsed = Url::parse(url)
        .map_err(|e| invalid(format!("\"{shown}\" is not a location: {e}")).hint(SCHEMES))?;
    if parsed.password().is_some() {
        return Err(invalid("a location must not contain a password".into())
            .hint("Give credentials in PROPERTIES."));
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(
            invalid(format!("the location \"{shown}\" must not contain ? or #"))
                .hint("In a path they are written %3F and %23."),
        );
    }
    Ok(())
}

/// What kind of store a location is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    S3,
    Gcs,
    Azure,
    Hdfs,
}

impl Kind {
    fn of(url: &str) -> Option<Self> {
        if url.starts_with('/') {
            return Some(Self::Directory);
        }
        Some(match Url::parse(url).ok()?.scheme() {
            "file" => Self::Directory,
            "s3" | "s3a" | "s3n" | "oss" | "cosn" | "obs" => Self::S3,
            "gs" | "gcs" => Self::Gcs,
            "az" | "azure" | "abfs" | "abfss" | "wasb" | "wasbs" => Self::Azure,
            "hdfs" => Self::Hdfs,
            _ => return None,
        })
    }
}

/// A store, with the URL that it answers for.
pub type RemoteStore = (Url, Arc<dyn ObjectStore>);

/// A store, the prefix in it, and the directory if it is local.
pub(super) type Connected = (Store, Path, Option<PathBuf>);

/// Whether two locations are one, as clusters write them.
pub fn is_same_place(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

impl Location {
    /// Whether it is a directory of the machine that this runs on.
    pub fn is_local(&self) -> bool {
        Kind::of(&self.url) == Some(Kind::Directory)
    }

    /// Whether files can be renamed there: a directory, or HDFS.
    pub fn is_file_system(&self) -> bool {
        matches!(Kind::of(&self.url), Some(Kind::Directory | Kind::Hdfs))
    }

    /// Whether its properties name a file of that machine.
    pub fn names_a_file(&self) -> bool {
        self.property(GCS_KEY_PATH).is_some() || self.names_an_authority_file()
    }

    fn names_an_authority_file(&self) -> bool {
        self.property(AUTHORITY)
            .is_some_and(|pem| pem.starts_with('/'))
    }

    /// Whether whoever reaches it does so with what the statement gives, and not as the machine
    /// that this runs on.
    pub fn brings_keys(&self) -> bool {
        let all = |keys: &[&[&str]]| keys.iter().all(|keys| self.property(keys).is_some());
        match Kind::of(&self.url) {
            Some(Kind::S3) => all(&[ACCESS_KEY, SECRET_KEY]),
            Some(Kind::Gcs) => all(&[GCS_KEY]) || all(&[GCS_EMAIL, GCS_PRIVATE_KEY]),
            Some(Kind::Azure) => {
                all(&[AZURE_KEY]) || all(&[AZURE_SAS]) || all(&[AZURE_CLIENT, AZURE_CLIENT_SECRET])
            }
            Some(Kind::Directory | Kind::Hdfs) | None => false,
        }
    }

    /// Whether the store can put an object only if there is none: a commit relies on it. Without
    /// it, whoever comes second looks first.
    pub fn puts_on_condition(&self) -> bool {
        self.flag(CONDITIONAL_PUT).unwrap_or(true)
    }

    /// The hosts that it is reached at, with their ports where they are said: the endpoint's, or
    /// else those that follow from the URL.
    pub fn hosts(&self) -> Vec<String> {
        // As the client of the store reads it: a backslash ends the host as a slash does.
        let host_of = |text: &str| {
            let whole = if text.contains("://") {
                text.to_owned()
            } else {
                format!("http://{text}")
            };
            let Ok(url) = Url::parse(&whole) else {
                return text.to_lowercase();
            };
            let host = url.host_str().unwrap_or_default().to_lowercase();
            url.port()
                .map_or(host.clone(), |port| format!("{host}:{port}"))
        };
        // Without an endpoint the client goes to the store's own, whatever the bucket is called.
        let endpoint = match Kind::of(&self.url) {
            Some(Kind::S3) => self.property(ENDPOINT).map(str::to_owned).or_else(|| {
                let region = self.property(REGION).unwrap_or("us-east-1");
                Some(format!("s3.{region}.amazonaws.com"))
            }),
            Some(Kind::Azure) => self
                .property(AZURE_ENDPOINT)
                .map(str::to_owned)
                .or_else(|| {
                    let in_url = host_of(&self.url).split('.').next().map(str::to_owned);
                    let account = self.property(AZURE_ACCOUNT).map(str::to_owned).or(in_url);
                    account.map(|account| format!("{account}.blob.core.windows.net"))
                }),
            Some(Kind::Gcs) => Some("storage.googleapis.com".to_owned()),
            _ => None,
        };
        let mut hosts = vec![host_of(endpoint.as_deref().unwrap_or(&self.url))];
        // Who gives out tokens is asked with the secret.
        if Kind::of(&self.url) == Some(Kind::Azure) {
            hosts.extend(self.property(AZURE_CLIENT_ENDPOINT).map(host_of));
        }
        hosts.extend(self.gcs_base_url().as_deref().map(host_of));
        hosts
    }

    /// Where the store is, if a key of Google's says so itself.
    fn gcs_base_url(&self) -> Option<String> {
        let key: serde_json::Value = serde_json::from_str(self.property(GCS_KEY)?).ok()?;
        Some(key.get("gcs_base_url")?.as_str()?.to_owned())
    }

    /// Whether it is a location at all, of a kind that is known, with properties that can be kept
    /// to.
    pub fn check(&self) -> Result<(), Error> {
        check_location(&self.url)?;
        if Kind::of(&self.url).is_none() {
            let scheme = self.url.split(':').next().unwrap_or_default();
            return Err(
                Error::unsupported(format_args!("the location scheme \"{scheme}\"")).hint(SCHEMES),
            );
        }
        self.check_keys()
    }

    /// The store, the prefix in it, and the directory if it is local. Nothing is touched.
    pub(super) fn connect(&self) -> Result<Connected, Error> {
        self.check()?;
        if self.url.starts_with('/') {
            return local(FilePath::new(&self.url));
        }
        let url = Url::parse(&self.url)
            .map_err(|e| invalid(format!("\"{}\" is not a location: {e}", self.url)))?;
        let store = match Kind::of(&self.url) {
            Some(Kind::Directory) => {
                let path = url
                    .to_file_path()
                    .map_err(|()| invalid(format!("\"{url}\" is not a local path")))?;
                return local(&path);
            }
            Some(Kind::S3) => self.s3(&url)?,
            Some(Kind::Gcs) => self.gcs(&url)?,
            Some(Kind::Azure) => self.azure(&url)?,
            Some(Kind::Hdfs) => self.hdfs(&url)?,
            None => return Err(invalid(format!("\"{url}\" is not a location"))),
        };
        Ok((store, prefix_of(&url)?, None))
    }

    /// Makes the directory of a local location.
    pub async fn create(&self) -> Result<(), Error> {
        check_location(&self.url)?;
        let path = match Url::parse(&self.url) {
            Ok(url) if url.scheme() == "file" => url.to_file_path().ok(),
            Ok(_) => None,
            Err(_) => Some(PathBuf::from(&self.url)),
        };
        match path {
            Some(path)
                if !path
                    .components()
                    .any(|c| c == std::path::Component::ParentDir) =>
            {
                super::transfer::blocking(move || super::transfer::make_dir(&path)).await
            }
            _ => Ok(()),
        }
    }

    /// The store of a remote location, with the URL that it answers for; nothing for a local path.
    pub fn remote_store(&self) -> Result<Option<RemoteStore>, Error> {
        if self.is_local() {
            return Ok(None);
        }
        let (store, ..) = self.connect()?;
        let mut base = Url::parse(&self.url)
            .map_err(|e| invalid(format!("\"{}\" is not a location: {e}", self.url)))?;
        base.set_path("");
        Ok(Some((base, store.objects())))
    }

    fn property(&self, keys: &[&str]) -> Option<&str> {
        keys.iter()
            .filter_map(|k| self.properties.get(*k))
            .map(String::as_str)
            .find(|v| !v.is_empty())
    }

    fn flag(&self, keys: &[&str]) -> Option<bool> {
        self.property(keys).map(|v| v.eq_ignore_ascii_case("true"))
    }

    #[cfg(feature = "hdfs")]
    fn hdfs(&self, url: &Url) -> Result<Store, Error> {
        let settings = self
            .properties
            .iter()
            .filter(|(key, _)| key.starts_with("dfs.") || key.starts_with("hadoop."));
        if self.property(&["username"]).is_some() {
            return Err(
                Error::unsupported("the storage property \"username\" of HDFS").hint(
                    "Files belong to the user that the server runs as, or to HADOOP_USER_NAME.",
                ),
            );
        }
        let built = hdfs_native_object_store::HdfsObjectStoreBuilder::new()
            .with_url(url.as_str())
            .with_config(settings.map(|(key, value)| (key.clone(), value.clone())))
            .build();
        self::stores::guarded(|| built).map(|store| Arc::new(store).into())
    }

    #[cfg(not(feature = "hdfs"))]
    fn hdfs(&self, _: &Url) -> Result<Store, Error> {
        Err(
            Error::unsupported("the location scheme \"hdfs\" in this build")
                .hint("Build with: cargo build --release --features hdfs"),
        )
    }
}

/// The path of a URL as objects' names have it: an empty part, as of a slash said twice, is none.
fn prefix_of(url: &Url) -> Result<Path, Error> {
    let path: Vec<&str> = url
        .path()
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    Path::from_url_path(path.join("/"))
        .map_err(|e| invalid(format!("\"{url}\" is not a location: {e}")))
}

fn local(path: &FilePath) -> Result<Connected, Error> {
    if path
        .components()
        .any(|c| c == std::path::Component::ParentDir)
    {
        return Err(invalid(format!("\"{}\" contains \"..\"", path.display())));
    }
    // Nothing is looked at: a mount that hangs would hold up whoever opens. And the directory is
    // made when a repository is created, and only then: a mount that is gone must not be made up
    // for.
    let prefix = Path::from_absolute_path(path)
        .map_err(|e| invalid(format!("\"{}\" is no directory: {e}", path.display())))?;
    Ok((
        Arc::new(LocalFileSystem::new()).into(),
        prefix,
        Some(path.to_owned()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(url: &str, properties: &[(&str, &str)]) -> Location {
        Location {
            url: url.into(),
            properties: properties
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn starrocks_keys_reach_the_store() {
        let minio = location(
            "s3a://bucket/some/path",
            &[
                ("fs.s3a.access.key", "k"),
                ("fs.s3a.secret.key", "hush"),
                ("fs.s3a.endpoint", "http://127.0.0.1:9000"),
            ],
        );
        let (store, prefix, local) = minio.connect().expect("built");
        let shown = format!("{store:?}");
        assert!(shown.contains("127.0.0.1:9000/bucket"), "{shown}");
        assert_eq!((prefix.as_ref(), local), ("some/path", None));
        assert!(!format!("{minio:?}").contains("hush"));

        let oss = location(
            "oss://bucket/p",
            &[
                ("fs.oss.accessKeyId", "k"),
                ("fs.oss.accessKeySecret", "s"),
                ("fs.oss.endpoint", "oss-cn-x.aliyuncs.com"),
            ],
        );
        let shown = format!("{:?}", oss.connect().expect("built").0);
        assert!(
            shown.contains("https://bucket.oss-cn-x.aliyuncs.com"),
            "{shown}"
        );

        let azure = location(
            "abfss://c@acc.dfs.core.windows.net/p",
            &[("azure.adls2.shared_key", "aGk=")],
        );
        assert_eq!(azure.connect().expect("built").1.as_ref(), "p");
    }

    #[test]
    fn repository_hosts_match_the_client() {
        let base = (
            "gcp.gcs.service_account_key",
            "{\"client_email\":\"e\",\"gcs_base_url\":\"https://Evil.org:4443\"}",
        );
        for (url, properties, hosts) in [
            (
                "s3://bucket/x",
                &[][..],
                &["s3.us-east-1.amazonaws.com"][..],
            ),
            (
                "s3://s3.example.com/x",
                &[("aws.s3.region", "eu-west-1")],
                &["s3.eu-west-1.amazonaws.com"],
            ),
            (
                "s3a://bucket/x",
                &[("fs.s3a.endpoint", "http://a.example.com:9000")],
                &["a.example.com:9000"],
            ),
            (
                "s3://bucket/x",
                &[("aws.s3.endpoint", "http://evil.org\\@a.example.com")],
                &["evil.org"],
            ),
            // Not for them.
            (
                "gs://bucket/x",
                &[("aws.s3.endpoint", "http://a.example.com")],
                &["storage.googleapis.com"],
            ),
            (
                "abfss://c@acc.dfs.core.windows.net/p",
                &[("aws.s3.endpoint", "a.example.com")],
                &["acc.blob.core.windows.net"],
            ),
            (
                "az://c/p",
                &[("azure.blob.storage_account", "Acc")],
                &["acc.blob.core.windows.net"],
            ),
            (
                "gs://bucket/x",
                &[base],
                &["storage.googleapis.com", "evil.org:4443"],
            ),
        ] {
            assert_eq!(location(url, properties).hosts(), hosts, "{url}");
        }
    }

    #[test]
    fn a_bad_location_says_why() {
        for (url, properties, kind) in [
            ("nonsense", &[][..], ErrorKind::InvalidParameter),
            ("ftp://host/x", &[], ErrorKind::Unsupported),
            ("hdfs://host/x", &[], ErrorKind::Unsupported),
            ("s3:///x", &[], ErrorKind::InvalidParameter),
            ("s3://u:p@bucket/x", &[], ErrorKind::InvalidParameter),
            (
                "s3://bucket/x",
                &[("aws.s3.access_key", "k")],
                ErrorKind::InvalidParameter,
            ),
            (
                "oss://bucket/x",
                &[("fs.oss.endpoint", "10.0.0.1")],
                ErrorKind::InvalidParameter,
            ),
            (
                "oss://bucket/x",
                &[("fs.oss.endpoint", "http://[::1]:80")],
                ErrorKind::InvalidParameter,
            ),
            (
                "oss://bucket/x",
                &[("fs.oss.endpoint", "http://")],
                ErrorKind::InvalidParameter,
            ),
            (
                "cosn://bucket/x",
                &[("fs.cosn.bucket.endpoint_suffix", "a b")],
                ErrorKind::InvalidParameter,
            ),
            (
                "s3://bucket/x",
                &[("aws.s3.endpoint", "no url at all")],
                ErrorKind::InvalidParameter,
            ),
            (
                "s3://bucket/x",
                &[("aws.s3.endpoint", "ftp://host")],
                ErrorKind::InvalidParameter,
            ),
            (
                "s3://bucket/x",
                &[("aws.s3.endpoint", "http://u:p@host")],
                ErrorKind::InvalidParameter,
            ),
            (
                "obs://bu cket/x",
                &[("fs.obs.endpoint", "host")],
                ErrorKind::InvalidParameter,
            ),
            ("/tmp/../etc", &[], ErrorKind::InvalidParameter),
        ] {
            if cfg!(feature = "hdfs") && url.starts_with("hdfs") {
                continue;
            }
            assert_eq!(
                location(url, properties).connect().expect_err(url).kind,
                kind,
                "{url}"
            );
        }
    }
}
