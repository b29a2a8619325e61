//! A repository looked through: which files its manifests need, whether they are there and whole,
//! and what else lies about.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hasher;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use twox_hash::XxHash64;

use super::cipher::PlainDigest;
use super::layout::{Layout, Place};
use super::transfer::{blocking, digest_file, forget_cached};
use super::{LISTINGS, Repository, storage_error};
use crate::env::Env;
use crate::error::{Error, ErrorKind};
use crate::job::{
    BackupName, Checked, DataFile, Finding, FindingKind, Findings, PARTS_MAX, SAMPLE_ALL,
    VerifyLevel, VerifyPlan, VerifyRequest, Volume,
};
use crate::names::{BackupTimestamp, JobUid, Sha256, SnapshotLabel};

/// Files of one part, on the average: each part is an event of its own.
const FILES_PER_PART: usize = 256;
/// How long a file that is being written has to get its name: a few seconds on HDFS.
pub(super) const UNFINISHED: Duration = Duration::from_secs(5);
/// So many directories of data files are listed each by itself; more are listed together where
/// they have little.
const LISTED_ALONE: usize = 4;
/// The most objects of such a listing: four answers of S3.
const LISTED_TOGETHER_MAX: usize = 4000;
/// Files that are read at a time in one part.
const READ_AT_A_TIME: usize = 2;

/// The files that some backups need, by their hashes.
#[derive(Debug, Default)]
pub struct FileSet(Vec<Needed>);

#[derive(Debug)]
struct Needed {
    file: DataFile,
    /// What its object is called.
    object: Sha256,
    /// The backups that need it, by their places in the plan.
    backups: Vec<u32>,
}

/// What stands in a repository's directory.
#[derive(Debug, Default)]
struct Inventory {
    /// Data files that a manifest may name, with their lengths.
    data: Vec<(Sha256, u64)>,
    /// Files that were not finished.
    partial: Vec<Path>,
    foreign: Vec<Path>,
}

impl FileSet {
    fn of(files: HashMap<Sha256, (DataFile, Vec<u32>)>, layout: &Layout) -> Self {
        let mut all: Vec<_> = files
            .into_values()
            .map(|(file, backups)| Needed {
                object: layout.object_of(&file.sha256),
                file,
                backups,
            })
            .collect();
        all.sort_by(|a, b| a.object.cmp(&b.object));
        Self(all)
    }

    fn needs(&self, object: &Sha256) -> bool {
        self.0
            .binary_search_by(|needed| needed.object.cmp(object))
            .is_ok()
    }

    /// The files whose objects' names begin with these bytes.
    fn within(&self, first_bytes: std::ops::Range<u32>) -> &[Needed] {
        let before = |end: u32| self.0.partition_point(|n| first_byte(&n.object) < end);
        &self.0[before(first_bytes.start)..before(first_bytes.end)]
    }
}

pub(super) fn first_byte(sha256: &Sha256) -> u32 {
    u32::from_str_radix(&sha256[..2], 16).expect("hex digits")
}

/// Whether a file is among so many of ten thousand; another job chooses others.
pub(super) fn is_sampled(name: &str, job: &JobUid, sample: u32) -> bool {
    let mut hasher = XxHash64::default();
    hasher.write(job.as_str().as_bytes());
    hasher.write(name.as_bytes());
    hasher.finish() % u64::from(SAMPLE_ALL) < u64::from(sample)
}

impl Repository {
    /// Reads the manifests that a verification is about, and sees what there is to look at. 42704
    /// if there is no such snapshot. `tolerant`: a manifest that cannot be read is a finding. With
    /// an environment, what may be under way is waited for.
    pub async fn plan_verification(
        &self,
        request: &VerifyRequest,
        tolerant: bool,
        env: Option<&Env>,
    ) -> Result<(VerifyPlan, FileSet), Error> {
        // What is listed before the manifests are read, and named by one of them then, is needed.
        let inventory = match request.label {
            None => self.inventory().await?,
            Some(_) => Inventory::default(),
        };
        let listings = match &request.label {
            None => self.snapshots().await?,
            Some(label) => {
                let listing = self.snapshot(label).await?;
                if listing.backups.is_empty() && listing.strays.is_empty() {
                    return Err(no_snapshot(self, label));
                }
                vec![listing]
            }
        };
        let mut plan = VerifyPlan::default();
        for listing in listings {
            let named = |backup: super::ListedBackup| BackupName {
                label: listing.label.clone(),
                timestamp: backup.timestamp,
            };
            plan.backups.extend(listing.backups.into_iter().map(named));
        }
        let (mut set, mut findings, gone) = self.files_of(&plan.backups, tolerant).await?;
        if !gone.is_empty() {
            // Dropped since they were listed: nothing is said of them.
            let mut place = 0..;
            plan.backups
                .retain(|_| !gone.contains(&place.next().expect("endless")));
            (set, findings, _) = self.files_of(&plan.backups, tolerant).await?;
        }
        plan.repository_id = self.id().await?;
        plan.restores = request.level == VerifyLevel::Restore;
        plan.findings = findings;
        plan.files = Volume::of(set.0.iter().map(|needed| &needed.file));
        plan.parts = set.0.len().div_ceil(FILES_PER_PART).min(PARTS_MAX as usize) as u32;
        let layout = self.layout().await?;
        if request.label.is_none() {
            for (path, kind, detail) in self.info_findings().await? {
                plan.findings.push(Finding {
                    kind,
                    object: layout.relative(&path),
                    backups: Vec::new(),
                    detail,
                });
            }
        }
        for path in &inventory.foreign {
            plan.findings.push(Finding {
                kind: FindingKind::Foreign,
                object: layout.relative(path),
                backups: Vec::new(),
                detail: "nothing that a repository has is called so".into(),
            });
        }
        let mut unfinished = self.still_there(inventory.partial).await?;
        if let (Some(env), false) = (env, unfinished.is_empty()) {
            env.clock.sleep(UNFINISHED).await;
            unfinished = self.still_there(unfinished).await?;
        }
        for path in &unfinished {
            plan.findings.push(Finding {
                kind: FindingKind::Unreferenced,
                object: layout.relative(path),
                backups: Vec::new(),
                detail: "a file that was not finished".into(),
            });
        }
        for (sha256, bytes) in inventory
            .data
            .iter()
            .filter(|(sha256, _)| !set.needs(sha256))
        {
            plan.findings.push(Finding {
                kind: FindingKind::Unreferenced,
                object: layout.relative(&layout.object(sha256)),
                backups: Vec::new(),
                detail: format!("{bytes} bytes that no manifest names"),
            });
        }
        Ok((plan, set))
    }

    /// The files that these backups need, what is wrong with their manifests, and which of the
    /// backups are gone by now. `tolerant`: a manifest that cannot be read is a finding.
    pub async fn files_of(
        &self,
        backups: &[BackupName],
        tolerant: bool,
    ) -> Result<(FileSet, Findings, BTreeSet<u32>), Error> {
        let reading = backups.iter().zip(0..).map(|(backup, place)| {
            async move { (place, self.manifest(&backup.label, &backup.timestamp).await) }.boxed()
        });
        let mut read = futures::stream::iter(reading.collect::<Vec<_>>()).buffered(LISTINGS);
        let (mut files, mut findings) = (HashMap::new(), Findings::default());
        let mut gone = BTreeSet::new();
        let layout = self.layout().await?;
        while let Some((place, manifest)) = read.next().await {
            let BackupName { label, timestamp } = &backups[place as usize];
            let (kind, error) = match manifest {
                Ok((manifest, _)) => {
                    for file in manifest.files() {
                        let known = files
                            .entry(file.sha256.clone())
                            .or_insert_with(|| (file.clone(), Vec::new()));
                        if known.1.last() != Some(&place) {
                            known.1.push(place);
                        }
                    }
                    continue;
                }
                Err(e) if e.kind == ErrorKind::MissingFile => {
                    if !self.is_listed(label, timestamp).await? {
                        gone.insert(place);
                        continue;
                    }
                    (FindingKind::Missing, e)
                }
                Err(e) if e.kind == ErrorKind::Corrupted => (FindingKind::ManifestDamaged, e),
                Err(e) if e.kind == ErrorKind::Unsupported => (FindingKind::ManifestNewer, e),
                Err(e) if tolerant => (FindingKind::Unreadable, e),
                Err(e) => return Err(e),
            };
            findings.push(Finding {
                kind,
                object: layout.relative(&layout.manifest(label, timestamp)),
                backups: vec![place],
                detail: error.message,
            });
        }
        Ok((FileSet::of(files, layout), findings, gone))
    }

    /// Whether a listing has a backup, whatever reading its manifest came to.
    pub(super) async fn is_listed(
        &self,
        label: &SnapshotLabel,
        timestamp: &BackupTimestamp,
    ) -> Result<bool, Error> {
        let listing = self.snapshot(label).await?;
        Ok(listing
            .backups
            .iter()
            .any(|backup| backup.timestamp == *timestamp))
    }

    /// Whether a backup is there: its object, or else a listing says so.
    pub async fn is_backed_up(
        &self,
        label: &SnapshotLabel,
        timestamp: &BackupTimestamp,
    ) -> Result<bool, Error> {
        let path = self.layout().await?.manifest(label, timestamp);
        Ok(self.exists(&path).await? || self.is_listed(label, timestamp).await?)
    }

    /// The id of the repository that stands here.
    pub async fn id(&self) -> Result<String, Error> {
        let info = self.info().await?.ok_or_else(|| self.no_repository())?;
        Ok(info.id)
    }

    /// What was being written when it was listed has its name by now, and is not there.
    async fn still_there(&self, paths: Vec<Path>) -> Result<Vec<Path>, Error> {
        let mut there = Vec::new();
        for path in paths {
            if self.exists(&path).await? {
                there.push(path);
            }
        }
        Ok(there)
    }

    /// Lists everything.
    async fn inventory(&self) -> Result<Inventory, Error> {
        let failed = |e| storage_error("list", &self.root, e);
        let mut found = Inventory::default();
        let layout = self.layout().await?;
        let mut objects = self.store.list(Some(&self.root));
        while let Some(object) = objects.try_next().await.map_err(failed)? {
            let label = object
                .location
                .prefix_match(&self.root)
                .and_then(|mut p| p.next());
            let directory = label.map(|name| self.root.clone().join(name.as_ref()));
            if directory.is_some_and(|directory| layout.is_strange_label(&directory)) {
                found.foreign.push(object.location);
                continue;
            }
            match layout.place_of(&object.location) {
                Some(Place::Data(sha256)) => found.data.push((sha256, object.size)),
                Some(Place::Partial) => found.partial.push(object.location),
                Some(Place::Other) => {}
                None => found.foreign.push(object.location),
            }
        }
        Ok(found)
    }

    /// Looks at one part of the files.
    pub async fn check_part(
        &self,
        set: &FileSet,
        (part, parts): (u32, u32),
        request: &VerifyRequest,
        job: &JobUid,
        tolerant: bool,
    ) -> Result<Checked, Error> {
        let bytes = 256 * part / parts.max(1)..256 * (part + 1) / parts.max(1);
        let layout = self.layout().await?;
        let mut checked = Checked::default();
        let mut to_read = Vec::new();
        let needed = |first: &u32| !set.within(*first..first + 1).is_empty();
        let directories: Vec<_> = bytes.filter(needed).collect();
        let together = self.listed_together(directories.len(), set.0.len()).await?;
        for first in directories {
            let alone;
            let there = match &together {
                Some(all) => all,
                None => {
                    alone = self.listed_under(first).await?;
                    &alone
                }
            };
            for needed in set.within(first..first + 1) {
                let file = &needed.file;
                let wrong = match there.get(&needed.object) {
                    Some(found) if found.size == layout.stored_bytes(file) => None,
                    // A listing may be late; the object itself is not.
                    _ => as_finding(self.length_is_wrong(file).await, tolerant)?,
                };
                match wrong {
                    Some((kind, detail)) => {
                        checked.findings.push(finding(layout, kind, needed, detail))
                    }
                    None if request.level == VerifyLevel::Files => {
                        checked.volume.add(Volume::of([file]));
                    }
                    None if is_sampled(&file.sha256, job, request.sample) => to_read.push(needed),
                    None => {}
                }
            }
        }
        let reading = to_read.into_iter().map(|needed| {
            async move {
                let wrong = self.bytes_are_wrong(&needed.file).await;
                Ok((needed, as_finding(wrong, tolerant)?))
            }
            .boxed()
        });
        let mut read =
            futures::stream::iter(reading.collect::<Vec<_>>()).buffer_unordered(READ_AT_A_TIME);
        while let Some((needed, wrong)) = read.try_next().await? {
            checked.volume.add(Volume::of([&needed.file]));
            if let Some((kind, detail)) = wrong {
                checked.findings.push(finding(layout, kind, needed, detail));
            }
        }
        Ok(checked)
    }

    /// What was found, without what only backups need that have been dropped since.
    pub async fn without_dropped(
        &self,
        backups: &[BackupName],
        mut checked: Checked,
    ) -> Result<Checked, Error> {
        let concerned: BTreeSet<u32> = checked
            .findings
            .kept()
            .iter()
            .flat_map(|f| f.backups.iter().copied())
            .collect();
        let mut gone = BTreeSet::new();
        for place in concerned {
            let BackupName { label, timestamp } = &backups[place as usize];
            if !self.is_listed(label, timestamp).await? {
                gone.insert(place);
            }
        }
        checked.findings = checked.findings.without(&gone);
        Ok(checked)
    }

    /// The objects of files whose names begin with this byte, as they are listed.
    pub(super) async fn listed_under(
        &self,
        first: u32,
    ) -> Result<HashMap<Sha256, ObjectMeta>, Error> {
        let directory = self.layout().await?.data_dir().join(format!("{first:02x}"));
        let found = self.listed_in(&directory, usize::MAX).await?;
        Ok(found.unwrap_or_default())
    }

    /// The objects of all data files in one listing, if so many files in so many directories are
    /// looked for that this takes fewer requests. Where there are directories it never does.
    pub(super) async fn listed_together(
        &self,
        directories: usize,
        files: usize,
    ) -> Result<Option<HashMap<Sha256, ObjectMeta>>, Error> {
        if self.writes_beside
            || directories <= LISTED_ALONE
            || files > LISTED_TOGETHER_MAX
            || self.has_many_files.load(Ordering::Relaxed)
        {
            return Ok(None);
        }
        let directory = self.layout().await?.data_dir();
        let listed = self.listed_in(&directory, LISTED_TOGETHER_MAX).await?;
        self.has_many_files
            .store(listed.is_none(), Ordering::Relaxed);
        Ok(listed)
    }

    /// The objects of data files in a directory and under it; nothing if there are more.
    async fn listed_in(
        &self,
        directory: &Path,
        at_most: usize,
    ) -> Result<Option<HashMap<Sha256, ObjectMeta>>, Error> {
        let layout = self.layout().await?;
        let mut objects = self.store.list(Some(directory));
        let mut found = HashMap::new();
        let failed = |e| storage_error("list", directory, e);
        while let Some(object) = objects.try_next().await.map_err(failed)? {
            if let Some(Place::Data(name)) = layout.place_of(&object.location) {
                found.insert(name, object);
            }
            if found.len() > at_most {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }

    async fn length_is_wrong(
        &self,
        file: &DataFile,
    ) -> Result<Option<(FindingKind, String)>, Error> {
        let layout = self.layout().await?;
        let (path, bytes) = (layout.data(&file.sha256), layout.stored_bytes(file));
        match self.store.head(&path).await {
            Ok(found) if found.size == bytes => Ok(None),
            Ok(found) => Ok(Some((
                FindingKind::WrongLength,
                format!("{} bytes instead of {bytes}", found.size),
            ))),
            Err(object_store::Error::NotFound { .. }) => Ok(Some((
                FindingKind::Missing,
                format!("{} bytes are missing", file.bytes),
            ))),
            Err(e) => Err(storage_error("look at", &path, e)),
        }
    }

    /// Reads a file; what reads wrong is read again before that is believed.
    async fn bytes_are_wrong(
        &self,
        file: &DataFile,
    ) -> Result<Option<(FindingKind, String)>, Error> {
        let path = self.layout().await?.data(&file.sha256);
        let read = || async {
            let (found, length) = self.digest_of(&path).await?;
            if file.sha256 == found && length == file.bytes {
                return Ok(());
            }
            let detail = format!("{length} bytes with SHA-256 {found}");
            Err(Error::new(ErrorKind::Corrupted, detail))
        };
        match self.read_again(read).await {
            Ok(()) => Ok(None),
            Err(e) if e.kind == ErrorKind::Corrupted => {
                self.note_damaged(&self.layout().await?.object_of(&file.sha256));
                Ok(Some((FindingKind::Damaged, e.message)))
            }
            Err(e) if e.kind == ErrorKind::MissingFile => Ok(Some((
                FindingKind::Missing,
                format!("{} bytes are missing", file.bytes),
            ))),
            Err(e) => Err(e),
        }
    }

    /// The SHA-256 of an object's plain bytes, and how many there are.
    pub(super) async fn digest_of(&self, path: &Path) -> Result<(String, u64), Error> {
        let mut coding = self.layout().await?.opening(path);
        if let Some(target) = self.local_path(path) {
            let passing = self.passing();
            return blocking(move || {
                forget_cached(&target);
                digest_file(&target, coding, passing)
            })
            .await;
        }
        let failed = |e| storage_error("read", path, e);
        let mut stream = self.store.get(path).await.map_err(failed)?.into_stream();
        let mut digest = PlainDigest::default();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(failed)?;
            self.pass(chunk.len() as u64).await?;
            coding.pass(&chunk, &mut digest)?;
        }
        coding.finish(&mut digest)?;
        let length = digest.length;
        Ok((digest.finish(), length))
    }
}

fn finding(layout: &Layout, kind: FindingKind, needed: &Needed, detail: String) -> Finding {
    Finding {
        kind,
        object: layout.relative(&layout.object(&needed.object)),
        backups: needed.backups.clone(),
        detail,
    }
}

type Wrong = Option<(FindingKind, String)>;

/// What cannot be read after several tries, while the rest can, is found out and not tried for
/// ever.
fn as_finding(looked: Result<Wrong, Error>, tolerant: bool) -> Result<Wrong, Error> {
    match looked {
        Err(e) if tolerant && e.kind == ErrorKind::Storage => {
            Ok(Some((FindingKind::Unreadable, e.message)))
        }
        looked => looked,
    }
}

fn no_snapshot(repository: &Repository, label: &SnapshotLabel) -> Error {
    let name = repository.name();
    Error::new(
        ErrorKind::UndefinedObject,
        format!("Snapshot does not exist in repository {name}: {label}"),
    )
    .hint(format!("See SHOW SNAPSHOT ON {name}."))
}
