//! The manifest of a backup: schemas, partitions with versions and ranges, tablets and their files.
//!
//! Every manifest is complete, so a restore never walks a chain; and it carries its own hash, so a
//! damaged one is known as such.

use std::collections::HashSet;

use bytes::Bytes;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::layout::FORMAT;
use crate::error::{Error, ErrorKind};
use crate::job::{
    BackupPlan, DataFile, Job, ManifestDigest, PlannedPartition, PlannedTable, PlannedView,
    RestoreObject, Volume, Work,
};
use crate::names::{
    BackupTimestamp, ClusterName, DatabaseName, JobUid, SnapshotLabel, TableName, Timestamp, Ttl,
};

/// What a backup contains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub label: SnapshotLabel,
    /// Its timestamp: when the job was created.
    pub timestamp: BackupTimestamp,
    /// The cluster it was made from.
    pub cluster: ClusterName,
    /// That cluster's own id, unique over all clusters; manifests of 0.1.0 before views may lack
    /// it.
    #[serde(default)]
    pub cluster_id: Option<String>,
    /// The database it was made from.
    pub database: DatabaseName,
    /// The job that made it, unique over all gateways.
    pub job_uid: JobUid,
    pub created_at: Timestamp,
    /// When all its data was in the repository.
    pub saved_at: Timestamp,
    /// How long it is kept; `None` is for ever.
    #[serde(default)]
    pub ttl: Option<Ttl>,
    /// The snapshot that an incremental backup followed, for people: a manifest is complete all the
    /// same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<SnapshotLabel>,
    /// When it may be deleted: fixed when it was made.
    #[serde(default)]
    pub expire_at: Option<Timestamp>,
    pub tables: Vec<PlannedTable>,
    #[serde(default)]
    pub views: Vec<PlannedView>,
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    sha256: String,
    #[serde(borrow)]
    manifest: &'a RawValue,
}

/// The job that a manifest says it was made by, whatever else is wrong with it.
pub(super) fn job_of(bytes: &[u8]) -> Option<JobUid> {
    #[derive(Deserialize)]
    struct JobOf {
        job_uid: JobUid,
    }
    let envelope: Envelope<'_> = serde_json::from_slice(bytes).ok()?;
    let JobOf { job_uid } = serde_json::from_str(envelope.manifest.get()).ok()?;
    Some(job_uid)
}

/// What the fuzzer of manifests runs: one that somebody made up, sealed with the hash that it
/// should have. It is refused, or names files by their hashes alone and reads again as what it was.
///
/// # Panics
/// When it does not.
#[doc(hidden)]
pub fn check_manifest(body: &str) {
    let sha256 = hex::encode(digest(&SHA256, body.as_bytes()));
    let Ok((manifest, _)) =
        Manifest::decode(format!("{{\"sha256\":\"{sha256}\",\"manifest\":{body}}}").as_bytes())
    else {
        return;
    };
    let is_plain = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    assert!(
        manifest
            .files()
            .all(|f| f.sha256.len() == 64 && f.sha256.bytes().all(is_plain)),
        "{body}"
    );
    let (bytes, _) = manifest.encode().expect("what was read is written");
    let (again, _) = Manifest::decode(&bytes).expect("what was written is read");
    assert_eq!(again, manifest);
}

impl Manifest {
    /// The manifest of a job whose content is fixed: the same job gives the same bytes.
    pub fn of(
        job: &Job,
        plan: &BackupPlan,
        cluster_id: &str,
        saved_at: Timestamp,
    ) -> Result<Self, Error> {
        let target = job.spec.target()?;
        let (ttl, base) = match &job.spec.work {
            Work::Backup { request, .. } => (request.ttl, request.base.clone()),
            Work::Restore { .. }
            | Work::External(_)
            | Work::DropSnapshot(_)
            | Work::Verify(_)
            | Work::Prune(_)
            | Work::Staged(_) => (None, None),
        };
        Ok(Self {
            format: FORMAT,
            label: target.label.clone(),
            timestamp: BackupTimestamp::of(job.created_at),
            cluster: job.spec.cluster.clone(),
            cluster_id: Some(cluster_id.to_owned()),
            database: target.database.clone(),
            job_uid: job.spec.uid.clone(),
            created_at: job.created_at,
            saved_at,
            ttl,
            base,
            expire_at: ttl.and_then(|ttl| ttl.after(saved_at)),
            tables: plan.tables.clone(),
            views: plan.views.clone(),
        })
    }

    /// Its bytes, and their digest.
    pub fn encode(&self) -> Result<(Bytes, ManifestDigest), Error> {
        let broken =
            |e: serde_json::Error| Error::internal(format!("a manifest cannot be written: {e}"));
        let body = serde_json::value::to_raw_value(self).map_err(broken)?;
        let sha256 = hex::encode(digest(&SHA256, body.get().as_bytes()));
        let bytes = serde_json::to_vec(&Envelope {
            sha256: sha256.clone(),
            manifest: &body,
        })
        .map_err(broken)?;
        let length = bytes.len() as u64;
        Ok((
            bytes.into(),
            ManifestDigest {
                sha256,
                bytes: length,
            },
        ))
    }

    /// Reads bytes back; XX001 if they are not what was written, 0A000 if a newer format.
    pub fn decode(bytes: &[u8]) -> Result<(Self, ManifestDigest), Error> {
        let damaged = |why: String| {
            Error::new(
                ErrorKind::Corrupted,
                format!("the manifest is damaged: {why}"),
            )
        };
        let envelope: Envelope<'_> =
            serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
        let sha256 = hex::encode(digest(&SHA256, envelope.manifest.get().as_bytes()));
        if sha256 != envelope.sha256 {
            return Err(damaged(format!(
                "its hash is {sha256}, but it says {}",
                envelope.sha256
            )));
        }
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let text = envelope.manifest.get();
        let Format { format } = serde_json::from_str(text).map_err(|e| damaged(e.to_string()))?;
        if format > FORMAT {
            return Err(
                Error::unsupported(format_args!("manifest format {format}")).hint(format!(
                    "This Starkeep reads format {FORMAT}; use a newer one."
                )),
            );
        }
        let manifest: Self = serde_json::from_str(text).map_err(|e| damaged(e.to_string()))?;
        manifest.validate()?;
        Ok((
            manifest,
            ManifestDigest {
                sha256,
                bytes: bytes.len() as u64,
            },
        ))
    }

    /// XX001 unless statements could have led to what it says.
    fn validate(&self) -> Result<(), Error> {
        let mut names = HashSet::new();
        let tables = self.tables.iter().map(|t| t.name.as_str());
        if let Some(twice) = tables
            .chain(self.views.iter().map(|v| v.name.as_str()))
            .find(|name| !names.insert(*name))
        {
            return Err(Error::new(
                ErrorKind::Corrupted,
                format!("the manifest is damaged: {twice} is there twice"),
            ));
        }
        self.tables.iter().try_for_each(PlannedTable::validate)
    }

    /// What a restore names, or StarRocks' words for what is not there.
    pub fn choose(
        &self,
        object: &RestoreObject,
    ) -> Result<(&PlannedTable, Vec<&PlannedPartition>), Error> {
        let table = self
            .tables
            .iter()
            .find(|t| t.name == object.table)
            .ok_or_else(|| self.lacks(&object.table))?;
        for partition in &object.partitions {
            if !table.partitions.iter().any(|p| &p.name == partition) {
                return Err(Error::new(
                    ErrorKind::UndefinedObject,
                    format!(
                        "Partition {partition} of table {} does not exist in snapshot {}",
                        table.name, self.label
                    ),
                ));
            }
        }
        let partitions = table
            .partitions
            .iter()
            .filter(|p| object.partitions.is_empty() || object.partitions.contains(&p.name));
        Ok((table, partitions.collect()))
    }

    pub fn view(&self, name: &TableName) -> Result<&PlannedView, Error> {
        self.views
            .iter()
            .find(|v| &v.name == name)
            .ok_or_else(|| self.lacks(name))
    }

    fn lacks(&self, name: &TableName) -> Error {
        let names: Vec<_> = self
            .tables
            .iter()
            .map(|t| &t.name)
            .chain(self.views.iter().map(|v| &v.name))
            .collect();
        let names: Vec<_> = names.into_iter().map(TableName::as_str).collect();
        Error::new(
            ErrorKind::UndefinedTable,
            format!("Table {name} does not exist in snapshot {}", self.label),
        )
        .detail(format!("the snapshot contains {}", names.join(", ")))
    }

    /// Every file, table by table; a file that stands in two tablets comes twice.
    pub fn files(&self) -> impl Iterator<Item = &DataFile> {
        self.tables
            .iter()
            .flat_map(|t| &t.partitions)
            .flat_map(|p| &p.tablets)
            .flat_map(|t| &t.files)
    }

    /// All its data.
    pub fn volume(&self) -> Volume {
        Volume::of(self.files())
    }

    /// `Details` of SHOW SNAPSHOT: StarRocks' brief form, one space of indent a level.
    pub fn details(&self) -> String {
        let objects: serde_json::Map<String, serde_json::Value> = self
            .tables
            .iter()
            .map(|table| {
                let partitions: serde_json::Map<_, _> = table
                    .partitions
                    .iter()
                    .map(|p| (p.name.to_string(), serde_json::json!({})))
                    .collect();
                (
                    table.name.to_string(),
                    serde_json::json!({ "partitions": partitions }),
                )
            })
            .chain(self.views.iter().map(|view| {
                (
                    view.name.to_string(),
                    serde_json::json!({ "partitions": {} }),
                )
            }))
            .collect();
        let details = serde_json::json!({
            "name": self.label,
            "database": self.database,
            "backup_time": self.created_at.0,
            "backup_objects": objects,
            "backup_result": "succeed",
        });
        let mut out = Vec::new();
        let mut writer = serde_json::Serializer::with_formatter(
            &mut out,
            serde_json::ser::PrettyFormatter::with_indent(b" "),
        );
        details
            .serialize(&mut writer)
            .expect("plain values serialize");
        String::from_utf8(out).expect("JSON is UTF-8")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::repository) fn sample() -> Manifest {
        Manifest {
            format: FORMAT,
            label: SnapshotLabel::new("l").expect("valid"),
            timestamp: BackupTimestamp::of(Timestamp(0)),
            cluster: ClusterName::new("embedded").expect("valid"),
            cluster_id: None,
            database: DatabaseName::new("d").expect("valid"),
            job_uid: JobUid::new("u").expect("valid"),
            created_at: Timestamp(0),
            saved_at: Timestamp(1),
            ttl: None,
            base: None,
            expire_at: None,
            tables: Vec::new(),
            views: Vec::new(),
        }
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let (bytes, digest) = sample().encode().expect("encodes");
        assert_eq!(
            Manifest::decode(&bytes).expect("decodes"),
            (sample(), digest)
        );
        for i in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[i] ^= 1;
            assert!(Manifest::decode(&damaged).is_err(), "byte {i}");
        }
        assert_eq!(
            Manifest::decode(&bytes[..bytes.len() / 2])
                .expect_err("cut")
                .kind,
            ErrorKind::Corrupted
        );
    }

    #[test]
    fn a_newer_format_is_told_apart_from_damage() {
        let newer = Manifest {
            format: FORMAT + 1,
            ..sample()
        };
        let (bytes, _) = newer.encode().expect("encodes");
        assert_eq!(
            Manifest::decode(&bytes).expect_err("newer").kind,
            ErrorKind::Unsupported
        );
    }
}
