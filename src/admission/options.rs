//! Properties of BACKUP and RESTORE on a StarRocks cluster that are ours.

use crate::error::{Error, ErrorKind};
use crate::job::Base;
use crate::names::SnapshotLabel;
use crate::statement::Properties;

/// The property of BACKUP and RESTORE that is ours: to wait for the turn instead of being refused.
const QUEUE: &str = "queue";
/// The property of RESTORE that is ours: old tables stay until all is restored.
const ATOMIC: &str = "atomic";

/// Takes our property out of those that go to the cluster.
pub(super) fn take_queue(properties: &mut Properties, default: bool) -> Result<bool, Error> {
    take_flag(properties, QUEUE, default)
}

/// The same of `"atomic"`.
pub(super) fn take_atomic(properties: &mut Properties) -> Result<bool, Error> {
    take_flag(properties, ATOMIC, false)
}

fn take_flag(properties: &mut Properties, key: &str, default: bool) -> Result<bool, Error> {
    match properties
        .0
        .remove(key)
        .map(|v| v.trim().to_ascii_lowercase())
        .as_deref()
    {
        None => Ok(default),
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => Err(Error::new(
            ErrorKind::InvalidParameter,
            format!("invalid value of \"{key}\": \"{other}\" is not true or false"),
        )),
    }
}

/// Takes `"type" = "incremental"` and `"base"` out of the properties of a BACKUP: StarRocks, which
/// reads the first of them, has nothing that follows.
pub(super) fn take_base(properties: &mut Properties) -> Result<Option<Base>, Error> {
    let is_incremental = properties
        .get("type")
        .is_some_and(|t| t.trim().eq_ignore_ascii_case("incremental"));
    let base = properties.0.remove("base");
    if !is_incremental {
        return match base {
            None => Ok(None),
            Some(_) => Err(Error::new(
                ErrorKind::InvalidParameter,
                "\"base\" is for \"type\" = \"incremental\"",
            )),
        };
    }
    properties.0.remove("type");
    match base.as_deref().map(str::trim) {
        None => Ok(Some(Base::Latest)),
        Some(text) if text.eq_ignore_ascii_case("latest") => Ok(Some(Base::Latest)),
        Some(text) => Ok(Some(Base::Label(SnapshotLabel::new(text)?))),
    }
}
