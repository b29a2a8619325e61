//! Where a repository is: a URL or path and StarRocks' property keys, turned into an object store.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use crate::error::{Error, ErrorKind};

/// A location as CREATE REPOSITORY gives it. Debug leaves the properties out: secrets are among
/// them.
#[derive(Clone, PartialEq, Eq)]
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

/// Checks the form of a location without touching it. A URL with a password in it is refused: it
/// would be shown.
pub fn check_location(url: &str) -> Result<(), Error> {
    if url.starts_with('/') {
        return Ok(());
    }
    let parsed = Url::parse(url).map_err(|e| {
        invalid(format!("\"{url}\" is not a location: {e}"))
            .hint("Use an absolute path, or a URL with file, s3, s3a, oss, cosn, obs, gs, az, abfs or abfss.")
    })?;
    if parsed.password().is_some() {
        return Err(invalid("a location must not contain a password".into())
            .hint("Give credentials in PROPERTIES."));
    }
    Ok(())
}

/// The property keys that name the same thing for each kind of store, in order of preference.
const ACCESS_KEY: &[&str] = &[
    "aws.s3.access_key",
    "fs.s3a.access.key",
    "fs.oss.accessKeyId",
    "fs.cosn.userinfo.secretId",
    "fs.obs.access.key",
];
const SECRET_KEY: &[&str] = &[
    "aws.s3.secret_key",
    "fs.s3a.secret.key",
    "fs.oss.accessKeySecret",
    "fs.cosn.userinfo.secretKey",
    "fs.obs.secret.key",
];
const ENDPOINT: &[&str] = &[
    "aws.s3.endpoint",
    "fs.s3a.endpoint",
    "fs.oss.endpoint",
    "fs.cosn.bucket.endpoint_suffix",
    "fs.obs.endpoint",
];
const S3_SCHEMES: &[&str] = &["s3", "s3a", "s3n", "oss", "cosn", "obs"];
const REGION: &[&str] = &["aws.s3.region", "fs.s3a.endpoint.region"];
const SESSION_TOKEN: &[&str] = &["aws.s3.session_token", "fs.s3a.session.token"];
const GCS_KEY: &[&str] = &["gcp.gcs.service_account_key"];
/// A file with a key, on the machine that this runs on.
const GCS_KEY_PATH: &str = "gcp.gcs.service_account_key_path";
const PATH_STYLE: &[&str] = &[
    "aws.s3.enable_path_style_access",
    "fs.s3a.path.style.access",
];
const ENABLE_SSL: &[&str] = &["aws.s3.enable_ssl", "fs.s3a.connection.ssl.enabled"];

fn retry() -> RetryConfig {
    // The runner retries for as long as a job lives; this only rides out a hiccup.
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 3,
        retry_timeout: Duration::from_secs(30),
    }
}

fn client(allow_http: bool) -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(allow_http)
        .with_connect_timeout(Duration::from_secs(10))
        .with_timeout(Duration::from_secs(300))
}

/// A store, with the URL that it answers for.
pub type RemoteStore = (Url, Arc<dyn ObjectStore>);

type Connected = (Arc<dyn ObjectStore>, Path, Option<PathBuf>);

impl Location {
    /// Whether it is a directory of the machine that this runs on.
    pub fn is_local(&self) -> bool {
        self.url.starts_with('/') || Url::parse(&self.url).is_ok_and(|url| url.scheme() == "file")
    }

    /// Whether its properties name a file of that machine.
    pub fn names_a_file(&self) -> bool {
        self.properties.contains_key(GCS_KEY_PATH)
    }

    /// Whether whoever reaches it does so with what the statement gives, and not as the machine
    /// that this runs on.
    pub fn brings_keys(&self) -> bool {
        const KEYS: &[&str] = &[
            "gcp.gcs.service_account_key",
            "azure.blob.shared_key",
            "azure.adls2.shared_key",
        ];
        (self.property(ACCESS_KEY).is_some() && self.property(SECRET_KEY).is_some())
            || self.property(KEYS).is_some()
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
        // Only stores that speak S3 go by the endpoint.
        let is_s3 = self
            .url
            .split_once("://")
            .is_some_and(|(scheme, _)| S3_SCHEMES.contains(&scheme.to_lowercase().as_str()));
        let endpoint = self.property(ENDPOINT).filter(|_| is_s3);
        let mut hosts = vec![host_of(endpoint.unwrap_or(&self.url))];
        // A key of Google's may say itself where the store is.
        let key = self
            .property(GCS_KEY)
            .and_then(|key| serde_json::from_str::<serde_json::Value>(key).ok());
        hosts.extend(
            key.iter()
                .filter_map(|key| key.get("gcs_base_url")?.as_str())
                .map(host_of),
        );
        hosts
    }

    /// The store, the prefix in it, and the directory if it is local. Nothing is touched.
    pub(super) fn connect(&self) -> Result<Connected, Error> {
        check_location(&self.url)?;
        if self.url.starts_with('/') {
            return local(FilePath::new(&self.url));
        }
        let url = Url::parse(&self.url)
            .map_err(|e| invalid(format!("\"{}\" is not a location: {e}", self.url)))?;
        let built = match url.scheme() {
            "file" => {
                let path = url
                    .to_file_path()
                    .map_err(|()| invalid(format!("\"{url}\" is not a local path")))?;
                return local(&path);
            }
            scheme if S3_SCHEMES.contains(&scheme) => self.s3(&url)?,
            "gs" | "gcs" => self.gcs(&url)?,
            "az" | "azure" | "abfs" | "abfss" | "wasb" | "wasbs" => self.azure(&url)?,
            "hdfs" => return hdfs(&url),
            other => {
                return Err(Error::unsupported(format_args!("the location scheme \"{other}\""))
                    .hint("Use an absolute path, or file, s3, s3a, oss, cosn, obs, gs, az, abfs or abfss."));
            }
        };
        let prefix = Path::from_url_path(url.path())
            .map_err(|e| invalid(format!("\"{url}\" is not a location: {e}")))?;
        Ok((built, prefix, None))
    }

    /// Makes the directory of a local location.
    pub fn create(&self) -> Result<(), Error> {
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
                super::transfer::make_dir(&path)
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
        Ok(Some((base, store)))
    }

    fn property(&self, keys: &[&str]) -> Option<&str> {
        keys.iter()
            .find_map(|k| self.properties.get(*k))
            .map(String::as_str)
            .filter(|v| !v.is_empty())
    }

    fn flag(&self, keys: &[&str]) -> Option<bool> {
        self.property(keys).map(|v| v.eq_ignore_ascii_case("true"))
    }

    fn bucket(url: &Url) -> Result<&str, Error> {
        url.host_str()
            .filter(|h| !h.is_empty())
            .ok_or_else(|| invalid(format!("\"{url}\" names no bucket")))
    }

    fn s3(&self, url: &Url) -> Result<Arc<dyn ObjectStore>, Error> {
        let bucket = Self::bucket(url)?;
        let ssl = self.flag(ENABLE_SSL).unwrap_or(true);
        let endpoint = self.property(ENDPOINT).map(|e| {
            if e.contains("://") {
                e.to_owned()
            } else {
                format!("{}://{e}", if ssl { "https" } else { "http" })
            }
        });
        if let Some(endpoint) = &endpoint {
            check_endpoint(
                endpoint,
                bucket,
                matches!(url.scheme(), "oss" | "cosn" | "obs"),
            )?;
        }
        let plain = endpoint
            .as_deref()
            .is_some_and(|e| e.starts_with("http://"));
        // OSS, COS and OBS know only bucket names in the host; other endpoints of one's own usually
        // only in the path.
        let virtual_host = matches!(url.scheme(), "oss" | "cosn" | "obs");
        let path_style = self
            .flag(PATH_STYLE)
            .unwrap_or(endpoint.is_some() && !virtual_host);
        let keys = (self.property(ACCESS_KEY), self.property(SECRET_KEY));
        let mut builder = match keys {
            (Some(key), Some(secret)) => AmazonS3Builder::new()
                .with_region("us-east-1")
                .with_access_key_id(key)
                .with_secret_access_key(secret),
            // The SDK's environment variables, or the instance's profile.
            (None, None) => AmazonS3Builder::from_env(),
            _ => {
                return Err(invalid("an access key and its secret key go together".into())
                    .hint("Set both \"aws.s3.access_key\" and \"aws.s3.secret_key\", or neither to use the instance's profile."));
            }
        };
        builder = builder
            .with_bucket_name(bucket)
            .with_virtual_hosted_style_request(!path_style)
            .with_client_options(client(plain))
            .with_retry(retry());
        if let Some(region) = self.property(REGION) {
            builder = builder.with_region(region);
        }
        if let Some(token) = self.property(SESSION_TOKEN) {
            builder = builder.with_token(token);
        }
        if let Some(endpoint) = endpoint {
            let endpoint = match endpoint.split_once("://") {
                Some((scheme, host)) if !path_style && !host.starts_with(&format!("{bucket}.")) => {
                    format!("{scheme}://{bucket}.{host}")
                }
                _ => endpoint,
            };
            builder = builder.with_endpoint(endpoint);
        }
        built(|| builder.build())
    }

    fn gcs(&self, url: &Url) -> Result<Arc<dyn ObjectStore>, Error> {
        let mut builder = GoogleCloudStorageBuilder::new()
            .with_bucket_name(Self::bucket(url)?)
            .with_client_options(client(false))
            .with_retry(retry());
        if let Some(key) = self.property(GCS_KEY) {
            builder = builder.with_service_account_key(key);
        } else if let Some(path) = self.property(&[GCS_KEY_PATH]) {
            builder = builder.with_service_account_path(path);
        }
        built(|| builder.build())
    }

    /// `az://container/path`, or `abfss://container@account.dfs.core.windows.net/path`.
    fn azure(&self, url: &Url) -> Result<Arc<dyn ObjectStore>, Error> {
        let host = Self::bucket(url)?;
        let (container, host_account) = match url.username() {
            "" => (host, None),
            container => (container, host.split('.').next()),
        };
        let account = self
            .property(&["azure.blob.storage_account", "azure.adls2.storage_account"])
            .or(host_account);
        let mut builder = MicrosoftAzureBuilder::new()
            .with_container_name(container)
            .with_client_options(client(false))
            .with_retry(retry());
        if let Some(account) = account {
            builder = builder.with_account(account);
        }
        if let Some(key) = self.property(&["azure.blob.shared_key", "azure.adls2.shared_key"]) {
            builder = builder.with_access_key(key);
        }
        built(|| builder.build())
    }
}

/// object_store's builder panics at an endpoint that is no URL, or whose host cannot have the
/// bucket before it.
fn check_endpoint(endpoint: &str, bucket: &str, in_host: bool) -> Result<(), Error> {
    let wrong = |why: &str| {
        invalid(format!("the endpoint \"{endpoint}\" {why}"))
            .hint("Give a host, host:port, or an http or https URL.")
    };
    let parsed = Url::parse(endpoint).map_err(|e| wrong(&format!("is no URL: {e}")))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(wrong("is neither http nor https"));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(wrong("must not contain a user or password"));
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(wrong("must not contain a query"));
    }
    match parsed.host() {
        None => Err(wrong("names no host")),
        Some(url::Host::Domain(_)) if in_host => {
            let whole = format!(
                "{}://{bucket}.{}",
                parsed.scheme(),
                endpoint.split_once("://").map_or("", |(_, host)| host)
            );
            Url::parse(&whole).map(drop).map_err(|e| {
                wrong(&format!(
                    "cannot have the bucket \"{bucket}\" before it: {e}"
                ))
            })
        }
        Some(_) if in_host => Err(wrong(
            "is an address, and this kind of store has its buckets before a host's name",
        )),
        Some(_) => Ok(()),
    }
}

/// A builder that panics must not take the statement's connection with it.
fn guarded<S>(build: impl FnOnce() -> Result<S, object_store::Error>) -> Result<S, Error> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(build)) {
        Ok(built) => built.map_err(|e| {
            invalid(format!(
                "the storage properties do not fit the location: {e}"
            ))
        }),
        Err(_) => Err(invalid(
            "the storage properties do not fit the location".into(),
        )),
    }
}

fn built<S: ObjectStore>(
    build: impl FnOnce() -> Result<S, object_store::Error>,
) -> Result<Arc<dyn ObjectStore>, Error> {
    guarded(build).map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
}

fn local(path: &FilePath) -> Result<Connected, Error> {
    if path
        .components()
        .any(|c| c == std::path::Component::ParentDir)
    {
        return Err(invalid(format!("\"{}\" contains \"..\"", path.display())));
    }
    // The directory is made when a repository is created, and only then: a mount that is gone must
    // not be made up for.
    let store = LocalFileSystem::new_with_prefix(path).map_err(|e| {
        Error::new(
            ErrorKind::Storage,
            format!("failed to open directory \"{}\": {e}", path.display()),
        )
    })?;
    Ok((Arc::new(store), Path::default(), Some(path.to_owned())))
}

#[cfg(feature = "hdfs")]
fn hdfs(url: &Url) -> Result<Connected, Error> {
    let store = hdfs_native_object_store::HdfsObjectStoreBuilder::new()
        .with_url(url.as_str())
        .build();
    let prefix = Path::from_url_path(url.path())
        .map_err(|e| invalid(format!("\"{url}\" is not a location: {e}")))?;
    Ok((built(|| store)?, prefix, None))
}

#[cfg(not(feature = "hdfs"))]
fn hdfs(_url: &Url) -> Result<Connected, Error> {
    Err(
        Error::unsupported("the location scheme \"hdfs\" in this build")
            .hint("Build with: cargo build --release --features hdfs"),
    )
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
    fn hosts_are_those_that_the_client_goes_to() {
        let base = (
            "gcp.gcs.service_account_key",
            "{\"client_email\":\"e\",\"gcs_base_url\":\"https://Evil.org:4443\"}",
        );
        for (url, properties, hosts) in [
            ("s3://bucket/x", &[][..], &["bucket"][..]),
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
                &["bucket"],
            ),
            (
                "abfss://c@acc.dfs.core.windows.net/p",
                &[("aws.s3.endpoint", "a.example.com")],
                &["acc.dfs.core.windows.net"],
            ),
            ("gs://bucket/x", &[base], &["bucket", "evil.org:4443"]),
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
