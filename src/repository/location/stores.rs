//! object_store's builders, given what the properties say.

use std::sync::LazyLock;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::HttpConnector;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::multipart::MultipartStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use regex::Regex;
use url::Url;

use super::keys::{
    ACCESS_KEY, AUTHORITY, AZURE_ACCOUNT, AZURE_CLIENT, AZURE_CLIENT_ENDPOINT, AZURE_CLIENT_SECRET,
    AZURE_CONTAINER, AZURE_ENDPOINT, AZURE_IDENTITY, AZURE_KEY, AZURE_SAS, AZURE_TENANT,
    ENABLE_SSL, ENDPOINT, GCS_EMAIL, GCS_IDENTITY, GCS_KEY, GCS_KEY_PATH, GCS_PRIVATE_KEY,
    GCS_PRIVATE_KEY_ID, PATH_STYLE, REGION, S3_IDENTITY, SECRET_KEY, SESSION_TOKEN,
};
use super::{Location, Store, invalid};
use crate::error::Error;
use crate::repository::http::Connector;
use crate::repository::single_deletes::SingleDeletes;

/// The region in the name of an endpoint, as AWS' SDK and those of COS and OBS take it.
static REGION_OF_ENDPOINT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?i)(?:^|[./])(?:s3(?:-fips|-accesspoint)?[.-](?:dualstack\.|fips\.)?",
        r"([a-z]{2}(?:-[a-z]+)+-\d+)\.(?:vpce\.)?amazonaws\.com(?:\.cn)?",
        r"|cos\.([a-z]+-[a-z0-9-]+)\.myqcloud\.com",
        r"|obs\.([a-z]+-[a-z0-9-]+)\.myhuaweicloud\.com)(?:[:/]|$)",
    ))
    .expect("a pattern of ours")
});

pub(super) fn region_of(endpoint: &str) -> Option<String> {
    let found = REGION_OF_ENDPOINT.captures(endpoint)?;
    let region = found.iter().skip(1).flatten().next()?;
    Some(region.as_str().to_lowercase())
}

fn retry() -> RetryConfig {
    // The runner retries for as long as a job lives; this only rides out a hiccup.
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 3,
        retry_timeout: Duration::from_secs(30),
    }
}

fn client(allow_http: bool) -> ClientOptions {
    ClientOptions::new().with_allow_http(allow_http)
}

fn is_plain(endpoint: Option<&str>) -> bool {
    endpoint.is_some_and(|e| e.starts_with("http://"))
}

/// None of the ways to prove who asks was given.
fn no_keys(keys: &str, variables: &str, identity: &str) -> Error {
    invalid("no keys are given for this location".into()).hint(format!(
        "Give {keys}, or set {variables} for the server, or ask for the identity of its machine with \"{identity}\" = \"true\"."
    ))
}

impl Location {
    pub(super) fn connector(&self) -> Result<Connector, Error> {
        let mut authorities = Vec::new();
        if let Some(pem) = self.property(AUTHORITY) {
            let file;
            let pem = if self.names_an_authority_file() {
                file = std::fs::read_to_string(pem)
                    .map_err(|e| Error::io("read", std::path::Path::new(pem), e))?;
                &file
            } else {
                pem
            };
            let read = reqwest::Certificate::from_pem_bundle(pem.as_bytes());
            authorities = read.map_err(|e| invalid(format!("\"ssl.ca\" does not read: {e}")))?;
            if authorities.is_empty() {
                return Err(invalid("\"ssl.ca\" has no certificate".into())
                    .hint("Give certificates in PEM, or the path of a file with them."));
            }
        }
        Ok(Connector { authorities })
    }

    fn bucket(url: &Url) -> Result<&str, Error> {
        url.host_str()
            .filter(|h| !h.is_empty())
            .ok_or_else(|| invalid(format!("\"{url}\" names no bucket")))
    }

    pub(super) fn s3(&self, url: &Url) -> Result<Store, Error> {
        let bucket = Self::bucket(url)?;
        let ssl = self.flag(ENABLE_SSL).unwrap_or(true);
        let endpoint = self.property(ENDPOINT).map(|e| {
            let e = e.trim_end_matches('/');
            if e.contains("://") {
                e.to_owned()
            } else {
                format!("{}://{e}", if ssl { "https" } else { "http" })
            }
        });
        // OSS, COS and OBS know only bucket names in the host; other endpoints of one's own usually
        // only in the path.
        let virtual_host = matches!(url.scheme(), "oss" | "cosn" | "obs");
        if let Some(endpoint) = &endpoint {
            check_endpoint(endpoint, bucket, virtual_host)?;
        }
        let path_style = self
            .flag(PATH_STYLE)
            .unwrap_or(endpoint.is_some() && !virtual_host);
        let keys = (self.property(ACCESS_KEY), self.property(SECRET_KEY));
        let mut builder = match keys {
            (Some(key), Some(secret)) => AmazonS3Builder::new()
                .with_region("us-east-1")
                .with_access_key_id(key)
                .with_secret_access_key(secret),
            (None, None) => {
                let has = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
                let given = has("AWS_ACCESS_KEY_ID") && has("AWS_SECRET_ACCESS_KEY")
                    || has("AWS_WEB_IDENTITY_TOKEN_FILE")
                    || has("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
                    || has("AWS_CONTAINER_CREDENTIALS_FULL_URI");
                if !given && self.flag(S3_IDENTITY) != Some(true) {
                    return Err(no_keys(
                        "\"aws.s3.access_key\" and \"aws.s3.secret_key\"",
                        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
                        S3_IDENTITY[0],
                    ));
                }
                AmazonS3Builder::from_env()
            }
            _ => {
                return Err(invalid("an access key and its secret key go together".into())
                    .hint("Set both \"aws.s3.access_key\" and \"aws.s3.secret_key\", or neither and \"aws.s3.use_instance_profile\" = \"true\"."));
            }
        };
        let (connector, options) = (self.connector()?, client(is_plain(endpoint.as_deref())));
        builder = builder
            .with_bucket_name(bucket)
            .with_virtual_hosted_style_request(!path_style)
            .with_http_connector(connector.clone())
            .with_client_options(options.clone())
            .with_retry(retry());
        let region = self.property(REGION).map(str::to_owned);
        if let Some(region) = region.or_else(|| region_of(endpoint.as_deref()?)) {
            builder = builder.with_region(region);
        }
        if let Some(token) = self.property(SESSION_TOKEN) {
            builder = builder.with_token(token);
        }
        if !self.puts_on_condition() {
            builder = builder.with_conditional_put(S3ConditionalPut::Disabled);
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
        let http = guarded(|| connector.connect(&options))?;
        let store = guarded(|| builder.build())?;
        Ok(Store::in_parts(SingleDeletes::new(store, http)))
    }

    pub(super) fn gcs(&self, url: &Url) -> Result<Store, Error> {
        let key_of_parts = self.gcs_key_of_parts()?;
        let given = self.property(GCS_KEY).or(key_of_parts.as_deref());
        let path = self.property(GCS_KEY_PATH);
        let mut builder = match (given, path) {
            (Some(key), _) => GoogleCloudStorageBuilder::new().with_service_account_key(key),
            (None, Some(path)) => GoogleCloudStorageBuilder::new().with_service_account_path(path),
            (None, None) => {
                let given = [
                    "GOOGLE_SERVICE_ACCOUNT",
                    "GOOGLE_SERVICE_ACCOUNT_KEY",
                    "GOOGLE_APPLICATION_CREDENTIALS",
                ];
                if !given.iter().any(|name| std::env::var_os(name).is_some())
                    && self.flag(GCS_IDENTITY) != Some(true)
                {
                    return Err(no_keys(
                        "\"gcp.gcs.service_account_email\" and \"gcp.gcs.service_account_private_key\"",
                        "GOOGLE_APPLICATION_CREDENTIALS",
                        GCS_IDENTITY[0],
                    ));
                }
                GoogleCloudStorageBuilder::from_env()
            }
        };
        builder = builder
            .with_bucket_name(Self::bucket(url)?)
            .with_http_connector(self.connector()?)
            .with_client_options(client(is_plain(self.gcs_base_url().as_deref())))
            .with_retry(retry());
        built(|| builder.build())
    }

    /// The key of a service account as StarRocks has it, in parts, as one of Google's key files.
    fn gcs_key_of_parts(&self) -> Result<Option<String>, Error> {
        match (self.property(GCS_EMAIL), self.property(GCS_PRIVATE_KEY)) {
            (Some(email), Some(key)) => Ok(Some(
                serde_json::json!({
                    "type": "service_account",
                    "client_email": email,
                    // One line in a statement, several in the key.
                    "private_key": key.replace("\\n", "\n"),
                    "private_key_id": self.property(GCS_PRIVATE_KEY_ID).unwrap_or_default(),
                })
                .to_string(),
            )),
            (None, None) => Ok(None),
            _ => Err(invalid(
                "the email of a service account and its private key go together".into(),
            )
            .hint("Set \"gcp.gcs.service_account_email\" and \"gcp.gcs.service_account_private_key\".")),
        }
    }

    /// `az://container/path`, or `abfss://container@account.dfs.core.windows.net/path`.
    pub(super) fn azure(&self, url: &Url) -> Result<Store, Error> {
        let host = Self::bucket(url)?;
        let (container, host_account) = match url.username() {
            "" => (host, None),
            container => (container, host.split('.').next()),
        };
        if let Some(named) = self
            .property(AZURE_CONTAINER)
            .filter(|named| *named != container)
        {
            return Err(invalid(format!(
                "the location is in container \"{container}\" and \"{}\" is \"{named}\"",
                AZURE_CONTAINER[0]
            ))
            .hint("Leave the property out, or name the location's container."));
        }
        if let (Some(in_url), Some(named)) = (host_account, self.property(AZURE_ACCOUNT))
            && !in_url.eq_ignore_ascii_case(named)
        {
            return Err(invalid(format!(
                "the location is in account \"{in_url}\" and \"{}\" is \"{named}\"",
                AZURE_ACCOUNT[0]
            ))
            .hint("Leave the property out, or name the location's account."));
        }
        if host_account.is_some()
            && !host.to_ascii_lowercase().ends_with(".core.windows.net")
            && self.property(AZURE_ENDPOINT).is_none()
        {
            return Err(
                invalid(format!("\"{host}\" is no account of Azure's public cloud"))
                    .hint("Set \"azure.blob.endpoint\" to the account's address."),
            );
        }
        let secret = (
            self.property(AZURE_CLIENT),
            self.property(AZURE_CLIENT_SECRET),
        );
        let mut builder = MicrosoftAzureBuilder::new();
        if let Some(key) = self.property(AZURE_KEY) {
            builder = builder.with_access_key(key);
        } else if let Some(token) = self.property(AZURE_SAS) {
            builder = builder.with_config(AzureConfigKey::SasKey, token.trim_start_matches('?'));
        } else if let (Some(client), Some(secret)) = secret {
            let (authority, tenant) = self.azure_authority()?;
            builder = builder.with_client_secret_authorization(client, secret, tenant);
            if let Some(authority) = authority {
                builder = builder.with_authority_host(authority);
            }
        } else {
            let has = |name: &str| std::env::var_os(name).is_some();
            let given = [
                "AZURE_STORAGE_ACCOUNT_KEY",
                "AZURE_STORAGE_KEY",
                "AZURE_STORAGE_SAS_KEY",
                "AZURE_STORAGE_SAS_TOKEN",
                "AZURE_CLIENT_SECRET",
                "AZURE_STORAGE_CLIENT_SECRET",
                "AZURE_FEDERATED_TOKEN_FILE",
            ];
            if !given.iter().any(|name| has(name)) && self.flag(AZURE_IDENTITY) != Some(true) {
                return Err(no_keys(
                    "\"azure.blob.shared_key\", \"azure.blob.sas_token\", or \"azure.adls2.oauth2_client_id\" with its secret and tenant",
                    "AZURE_STORAGE_ACCOUNT_KEY",
                    AZURE_IDENTITY[0],
                ));
            }
            builder = MicrosoftAzureBuilder::from_env();
            if let Some(client) = secret.0 {
                builder = builder.with_client_id(client);
            }
        }
        let endpoint = self
            .property(AZURE_ENDPOINT)
            .map(|e| e.trim_end_matches('/'));
        let endpoint = endpoint.map(|e| {
            if e.contains("://") {
                e.to_owned()
            } else {
                format!("https://{e}")
            }
        });
        let mut builder = builder
            .with_container_name(container)
            .with_http_connector(self.connector()?)
            .with_client_options(client(is_plain(endpoint.as_deref())))
            .with_retry(retry());
        if let Some(account) = self.property(AZURE_ACCOUNT).or(host_account) {
            builder = builder.with_account(account);
        }
        if let Some(endpoint) = endpoint {
            check_endpoint(&endpoint, container, false)?;
            builder = builder.with_endpoint(endpoint);
        }
        built(|| builder.build())
    }

    /// The authority that gives out tokens, if it is not Azure's own, and the tenant: StarRocks has
    /// both in `https://login.microsoftonline.com/<tenant>/oauth2/token`.
    fn azure_authority(&self) -> Result<(Option<String>, String), Error> {
        let tenant = self.property(AZURE_TENANT).map(str::to_owned);
        let Some(endpoint) = self.property(AZURE_CLIENT_ENDPOINT) else {
            let missing = || {
                invalid("a client's secret needs its tenant".into())
                    .hint("Set \"azure.adls2.oauth2_tenant_id\" or \"azure.adls2.oauth2_client_endpoint\".")
            };
            return Ok((None, tenant.ok_or_else(missing)?));
        };
        let wrong = |why: String| invalid(format!("\"{}\" {why}", AZURE_CLIENT_ENDPOINT[0]));
        let url = Url::parse(endpoint).map_err(|e| wrong(format!("is no URL: {e}")))?;
        let in_path = url
            .path_segments()
            .and_then(|mut parts| parts.next())
            .unwrap_or_default();
        let tenant = tenant.unwrap_or_else(|| in_path.to_owned());
        if tenant.is_empty() || url.scheme() != "https" {
            return Err(wrong("is not https://authority/tenant/oauth2/token".into()));
        }
        Ok((Some(url.origin().ascii_serialization()), tenant))
    }
}

/// object_store's builder panics at an endpoint that is no URL, or whose host cannot have the
/// bucket before it.
fn check_endpoint(endpoint: &str, bucket: &str, in_host: bool) -> Result<(), Error> {
    let shown = super::without_secrets(endpoint);
    let wrong = |why: &str| {
        invalid(format!("the endpoint \"{shown}\" {why}"))
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
pub(super) fn guarded<S>(
    build: impl FnOnce() -> Result<S, object_store::Error>,
) -> Result<S, Error> {
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

pub(super) fn built<S: ObjectStore + MultipartStore>(
    build: impl FnOnce() -> Result<S, object_store::Error>,
) -> Result<Store, Error> {
    guarded(build).map(Store::in_parts)
}
