//! StarRocks' property keys for storage: which there are, which are read, and which are refused.

use super::{Kind, Location, invalid};
use crate::error::Error;
use crate::repository::UserKey;

/// The keys that name the same thing for each kind of store, in order of preference.
pub(super) const ACCESS_KEY: &[&str] = &[
    "aws.s3.access_key",
    "fs.s3a.access.key",
    "fs.oss.accessKeyId",
    "fs.cosn.userinfo.secretId",
    "fs.obs.access.key",
];
pub(super) const SECRET_KEY: &[&str] = &[
    "aws.s3.secret_key",
    "fs.s3a.secret.key",
    "fs.oss.accessKeySecret",
    "fs.cosn.userinfo.secretKey",
    "fs.obs.secret.key",
];
pub(super) const SESSION_TOKEN: &[&str] = &[
    "aws.s3.session_token",
    "fs.s3a.session.token",
    "fs.oss.securityToken",
    "fs.obs.session.token",
];
pub(super) const ENDPOINT: &[&str] = &[
    "aws.s3.endpoint",
    "fs.s3a.endpoint",
    "fs.oss.endpoint",
    "fs.cosn.bucket.endpoint_suffix",
    "fs.obs.endpoint",
];
pub(super) const REGION: &[&str] = &[
    "aws.s3.region",
    "fs.s3a.endpoint.region",
    "fs.cosn.bucket.region",
];
pub(super) const PATH_STYLE: &[&str] = &[
    "aws.s3.enable_path_style_access",
    "fs.s3a.path.style.access",
];
pub(super) const ENABLE_SSL: &[&str] = &[
    "aws.s3.enable_ssl",
    "fs.s3a.connection.ssl.enabled",
    "fs.oss.connection.secure.enabled",
    "fs.obs.connection.ssl.enabled",
];
/// Whether the machine's own identity is asked for.
pub(super) const S3_IDENTITY: &[&str] = &[
    "aws.s3.use_instance_profile",
    "aws.s3.use_aws_sdk_default_behavior",
];
pub(super) const GCS_IDENTITY: &[&str] = &["gcp.gcs.use_compute_engine_service_account"];
pub(super) const AZURE_IDENTITY: &[&str] = &[
    "azure.blob.oauth2_use_managed_identity",
    "azure.adls2.oauth2_use_managed_identity",
];
pub(super) const GCS_KEY: &[&str] = &["gcp.gcs.service_account_key"];
/// A file with a key, on the machine that this runs on.
pub(super) const GCS_KEY_PATH: &[&str] = &["gcp.gcs.service_account_key_path"];
pub(super) const GCS_EMAIL: &[&str] = &["gcp.gcs.service_account_email"];
pub(super) const GCS_PRIVATE_KEY: &[&str] = &["gcp.gcs.service_account_private_key"];
pub(super) const GCS_PRIVATE_KEY_ID: &[&str] = &["gcp.gcs.service_account_private_key_id"];
pub(super) const AZURE_ACCOUNT: &[&str] =
    &["azure.blob.storage_account", "azure.adls2.storage_account"];
pub(super) const AZURE_KEY: &[&str] = &["azure.blob.shared_key", "azure.adls2.shared_key"];
pub(super) const AZURE_SAS: &[&str] = &["azure.blob.sas_token", "azure.adls2.sas_token"];
pub(super) const AZURE_CONTAINER: &[&str] = &["azure.blob.container"];
pub(super) const AZURE_ENDPOINT: &[&str] = &["azure.blob.endpoint", "azure.adls2.endpoint"];
pub(super) const AZURE_CLIENT: &[&str] = &[
    "azure.blob.oauth2_client_id",
    "azure.adls2.oauth2_client_id",
];
pub(super) const AZURE_CLIENT_SECRET: &[&str] = &[
    "azure.blob.oauth2_client_secret",
    "azure.adls2.oauth2_client_secret",
];
pub(super) const AZURE_CLIENT_ENDPOINT: &[&str] = &[
    "azure.blob.oauth2_client_endpoint",
    "azure.adls2.oauth2_client_endpoint",
];
pub(super) const AZURE_TENANT: &[&str] = &[
    "azure.blob.oauth2_tenant_id",
    "azure.adls2.oauth2_tenant_id",
];
/// Certificates of authorities, PEM, or a file with them on the machine that this runs on.
pub(super) const AUTHORITY: &[&str] = &["ssl.ca"];
/// `false` for stores that cannot put on condition.
pub const MAX_BYTES_PER_SECOND_KEY: &str = "max_bytes_per_second";
/// How a repository is encrypted, and the key that opens it.
pub const ENCRYPTION: &str = "encryption";
pub const ENCRYPTION_KEY: &str = "encryption.key";
/// The keys that are about any kind of location, and not about how it is reached.
const OF_ALL: &[&str] = &[MAX_BYTES_PER_SECOND_KEY, ENCRYPTION, ENCRYPTION_KEY];
pub(super) const CONDITIONAL_PUT: &[&str] = &[CONDITIONAL_PUT_KEY];
pub const CONDITIONAL_PUT_KEY: &str = "conditional_put";

/// What each kind of store reads.
const READ: &[(Kind, &[&[&str]])] = &[
    (
        Kind::S3,
        &[
            ACCESS_KEY,
            SECRET_KEY,
            SESSION_TOKEN,
            ENDPOINT,
            REGION,
            PATH_STYLE,
            ENABLE_SSL,
            S3_IDENTITY,
            AUTHORITY,
            CONDITIONAL_PUT,
        ],
    ),
    (
        Kind::Gcs,
        &[
            GCS_KEY,
            GCS_KEY_PATH,
            GCS_EMAIL,
            GCS_PRIVATE_KEY,
            GCS_PRIVATE_KEY_ID,
            GCS_IDENTITY,
            AUTHORITY,
            CONDITIONAL_PUT,
        ],
    ),
    (
        Kind::Azure,
        &[
            AZURE_ACCOUNT,
            AZURE_KEY,
            AZURE_SAS,
            AZURE_CONTAINER,
            AZURE_ENDPOINT,
            AZURE_CLIENT,
            AZURE_CLIENT_SECRET,
            AZURE_CLIENT_ENDPOINT,
            AZURE_TENANT,
            AZURE_IDENTITY,
            AUTHORITY,
            CONDITIONAL_PUT,
        ],
    ),
    (Kind::Hdfs, &[]),
    (Kind::Directory, &[]),
];

/// Who somebody else is to be, and how to prove it: what is not done is refused, for whoever asks
/// for it must not be taken for another.
const REFUSED: &[&str] = &[
    "aws.s3.iam_role_arn",
    "aws.s3.sts.region",
    "aws.s3.sts.endpoint",
    "aws.s3.external_id",
    "gcp.gcs.impersonation_service_account",
    "azure.adls1.oauth2_credential",
    "azure.adls1.oauth2_client_id",
    "azure.adls1.oauth2_endpoint",
    "azure.adls1.use_managed_service_identity",
    "kerberos_principal",
    "kerberos_keytab",
    "kerberos_keytab_content",
];

impl Location {
    /// Refuses by name what changes as whom or how storage is reached and is not done here.
    pub(super) fn check_keys(&self) -> Result<(), Error> {
        let refused = |key: &str| {
            Error::unsupported(format_args!("the storage property \"{key}\""))
                .hint("docs/sql.md lists the properties of repositories.")
        };
        if let Some(key) = REFUSED.iter().find(|key| self.property(&[key]).is_some()) {
            return Err(refused(key));
        }
        let authentication = &["hadoop.security.authentication"];
        if self
            .property(authentication)
            .is_some_and(|how| !how.eq_ignore_ascii_case("simple"))
        {
            return Err(refused(authentication[0]));
        }
        // They become parts of hosts' names.
        for keys in [REGION, AZURE_ACCOUNT, AZURE_TENANT] {
            for key in keys {
                let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
                if let Some(other) = self.property(&[key]).filter(|v| !v.chars().all(is_part)) {
                    let shown: String = other.chars().filter(|c| is_part(*c)).collect();
                    return Err(invalid(format!("\"{key}\" is no name: \"{shown}…\"")));
                }
            }
        }
        for keys in [
            PATH_STYLE,
            ENABLE_SSL,
            S3_IDENTITY,
            GCS_IDENTITY,
            AZURE_IDENTITY,
            CONDITIONAL_PUT,
        ] {
            for key in keys {
                let value = self.property(&[key]);
                if let Some(other) = value
                    .filter(|v| !v.eq_ignore_ascii_case("true") && !v.eq_ignore_ascii_case("false"))
                {
                    return Err(
                        invalid(format!("\"{key}\" is \"{other}\"")).hint("It is true or false.")
                    );
                }
            }
        }
        self.encryption_key()?;
        self.max_bytes_per_second().map(drop)
    }

    /// The key of an encrypted repository; nothing if it is not to be encrypted.
    pub fn encryption_key(&self) -> Result<Option<UserKey>, Error> {
        match (
            self.property(&[ENCRYPTION]),
            self.property(&[ENCRYPTION_KEY]),
        ) {
            (None, None) => Ok(None),
            (Some(how), _) if !how.eq_ignore_ascii_case("aes256-gcm") => {
                // Not what is there: it may be the key, at the wrong place.
                Err(invalid(format!("\"{ENCRYPTION}\" is not known"))
                    .hint("It is aes256-gcm, or left out."))
            }
            (Some(_), None) => {
                let message = format!("\"{ENCRYPTION}\" needs \"{ENCRYPTION_KEY}\"");
                Err(invalid(message).hint("It is 64 hex digits; openssl rand -hex 32 makes one."))
            }
            (None, Some(_)) => Err(
                invalid(format!("\"{ENCRYPTION_KEY}\" needs \"{ENCRYPTION}\""))
                    .hint("It is aes256-gcm."),
            ),
            (Some(_), Some(key)) => UserKey::parse(key).map(Some),
        }
    }

    /// The bytes of data that may go to and from it in a second, of all jobs together; nothing is
    /// no limit.
    pub fn max_bytes_per_second(&self) -> Result<Option<u64>, Error> {
        let Some(text) = self.property(&[MAX_BYTES_PER_SECOND_KEY]) else {
            return Ok(None);
        };
        let bytes: u64 = text.trim().parse().map_err(|_| {
            invalid(format!("\"{MAX_BYTES_PER_SECOND_KEY}\" is \"{text}\""))
                .hint("It is a whole number of bytes; 0 is no limit.")
        })?;
        Ok(Some(bytes).filter(|bytes| *bytes > 0))
    }

    /// The properties that nothing here reads for this kind of location.
    pub fn unread_keys(&self) -> Vec<&str> {
        let Some(kind) = Kind::of(&self.url) else {
            return Vec::new();
        };
        let read = READ
            .iter()
            .filter(|(of, _)| *of == kind)
            .flat_map(|(_, keys)| *keys);
        let read: Vec<&str> = read.flat_map(|keys| keys.iter().copied()).collect();
        let hdfs = |key: &str| {
            kind == Kind::Hdfs
                && (key == "username" || key.starts_with("dfs.") || key.starts_with("hadoop."))
        };
        let unread = self.properties.keys().map(String::as_str);
        unread
            .filter(|key| !read.contains(key) && !hdfs(key) && !OF_ALL.contains(key))
            .collect()
    }
}
