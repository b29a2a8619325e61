//! A repository that a StarRocks cluster writes, looked through from the bucket alone: whether what
//! its `__info_` files name is there, whether bytes have the MD5 of their names, and what else lies
//! about. Nothing is written.
//!
//! An `__info_` file names tablets and, up to 3.3, their files; lengths it does not have, so a file
//! that was cut short is found by its MD5.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::{FutureExt, StreamExt, TryStreamExt};
use md5::{Digest, Md5};
use object_store::ObjectStoreExt;

use super::starrocks_layout::{
    CONTENT, FileStatus, INFO_PREFIX, Info, LABEL_PREFIX, PART, StarRocksRepository, StoredFile,
    StoredLabel, split_md5,
};
use super::throttle::Throttle;
use super::{LISTINGS, storage_error};
use crate::error::{Error, ErrorKind};
use crate::job::{
    BackupName, Checked, Finding, FindingKind, Findings, PARTS_MAX, SAMPLE_ALL, VerifyLevel,
    VerifyPlan, VerifyRequest, Volume,
};
use crate::names::{BackupTimestamp, SnapshotLabel};

/// Files of one part, on the average.
const FILES_PER_PART: usize = 256;
/// Files that are read at a time in one part.
const READ_AT_A_TIME: usize = 2;
/// How often a file that reads wrong is read before that is believed.
const READS: u32 = 3;

/// The files of some snapshots: their names, and which snapshots need them, by their places.
#[derive(Debug, Default)]
pub struct StoredSet(Vec<(StoredFile, u32)>);

impl StoredSet {
    /// Those of one part of so many: a file's part goes by its MD5, so it is the same after a
    /// restart.
    fn part(&self, (part, parts): (u32, u32)) -> impl Iterator<Item = &(StoredFile, u32)> {
        let range = 256 * part / parts.max(1)..256 * (part + 1) / parts.max(1);
        self.0.iter().filter(move |(file, _)| {
            let first = file.md5.as_deref().and_then(|md5| md5.get(..2));
            let first = first.and_then(|byte| u32::from_str_radix(byte, 16).ok());
            first.is_some_and(|first| range.contains(&first))
        })
    }

    fn volume(&self) -> Volume {
        volume(self.0.iter().map(|(file, _)| file))
    }
}

fn volume<'a>(files: impl Iterator<Item = &'a StoredFile>) -> Volume {
    let mut volume = Volume::default();
    for file in files {
        volume.add(Volume {
            files: 1,
            bytes: file.bytes,
        });
    }
    volume
}

/// What looking at one label came to.
#[derive(Default)]
struct Looked {
    backups: Vec<BackupName>,
    /// Files that a backup needs, by its place among these.
    files: Vec<(StoredFile, u32)>,
    findings: Vec<Finding>,
}

impl Looked {
    fn find(&mut self, kind: FindingKind, object: String, backups: Vec<u32>, detail: &str) {
        self.findings.push(Finding {
            kind,
            object,
            backups,
            detail: detail.to_owned(),
        });
    }
}

/// The directory of a tablet below its label, and the files that it must have, where they are
/// named.
fn tablets(info: &Info) -> Vec<(String, &[String])> {
    let mut found = Vec::new();
    for table in info.backup_objects.values() {
        for partition in table.partitions.values() {
            let physical = partition.physical.values();
            let physical = physical.map(|physical| (physical.id, &physical.indexes));
            let logical = [(partition.id, &partition.indexes)];
            for (id, indexes) in logical.into_iter().chain(physical) {
                for index in indexes.values() {
                    for (tablet, files) in &index.tablets {
                        let place = format!(
                            "__tbl_{}/__part_{id}/__idx_{}/__{tablet}",
                            table.id, index.id
                        );
                        found.push((place, files.as_slice()));
                    }
                }
            }
        }
    }
    found
}

impl StarRocksRepository {
    /// Reads the `__info_` files that a verification is about, and sees what there is to look at.
    /// 42704 if there is no such snapshot. `tolerant`: an `__info_` file that cannot be read is a
    /// finding.
    pub async fn plan_verification(
        &self,
        request: &VerifyRequest,
        tolerant: bool,
    ) -> Result<(VerifyPlan, StoredSet), Error> {
        let repository_id = self.ping().await?;
        let labels = match &request.label {
            Some(label) => vec![label.to_string()],
            None => self.labels().await?,
        };
        let looking = labels
            .iter()
            .map(|label| self.look(label, tolerant).boxed());
        let looked: Vec<Looked> = futures::stream::iter(looking.collect::<Vec<_>>())
            .buffered(LISTINGS)
            .try_collect()
            .await?;
        if let (Some(label), [only]) = (&request.label, &looked[..])
            && only.backups.is_empty()
            && only.findings.is_empty()
        {
            let message = format!(
                "snapshot \"{label}\" does not exist in repository \"{}\"",
                self.name()
            );
            return Err(Error::new(ErrorKind::UndefinedObject, message));
        }
        let mut plan = VerifyPlan {
            repository_id,
            ..VerifyPlan::default()
        };
        let mut set = StoredSet::default();
        for mut label in looked {
            let first = plan.backups.len() as u32;
            plan.backups.append(&mut label.backups);
            let files = label.files.into_iter();
            set.0
                .extend(files.map(|(file, place)| (file, first + place)));
            for mut finding in label.findings {
                finding.backups.iter_mut().for_each(|place| *place += first);
                plan.findings.push(finding);
            }
        }
        if request.label.is_none() {
            self.find_strays(&mut plan.findings).await?;
        }
        plan.files = set.volume();
        plan.parts = set.0.len().div_ceil(FILES_PER_PART).min(PARTS_MAX as usize) as u32;
        Ok((plan, set))
    }

    /// The files of these snapshots, read again after a restart.
    pub async fn files_of(
        &self,
        backups: &[BackupName],
        tolerant: bool,
    ) -> Result<StoredSet, Error> {
        let places: HashMap<&BackupName, u32> = backups.iter().zip(0..).collect();
        let labels: BTreeSet<&SnapshotLabel> = backups.iter().map(|b| &b.label).collect();
        let mut set = StoredSet::default();
        for label in labels {
            let looked = self.look(label.as_str(), tolerant).await?;
            for (file, place) in looked.files {
                if let Some(place) = places.get(&looked.backups[place as usize]) {
                    set.0.push((file, *place));
                }
            }
        }
        Ok(set)
    }

    /// What lies in the repository's directory itself and is none of a repository's.
    async fn find_strays(&self, findings: &mut Findings) -> Result<(), Error> {
        let mut files = self.files(None).await?;
        while let Some(file) = files.try_next().await? {
            if file.status == FileStatus::Foreign && !file.path.starts_with(LABEL_PREFIX) {
                findings.push(Finding {
                    kind: FindingKind::Foreign,
                    object: file.path,
                    backups: Vec::new(),
                    detail: "nothing that a repository has is called so".into(),
                });
            }
        }
        Ok(())
    }

    /// Looks at everything under one label.
    async fn look(&self, label: &str, tolerant: bool) -> Result<Looked, Error> {
        let mut looked = Looked::default();
        let stored = self.label(label).await?;
        let files: Vec<StoredFile> = self.files(Some(label)).await?.try_collect().await?;
        let directory = format!("{LABEL_PREFIX}{label}");
        let infos = self.read_infos(&stored, tolerant, &mut looked).await?;
        if stored.infos.is_empty() && !files.is_empty() {
            let detail = "no __info_ file: a backup that is under way, or was broken off";
            looked.find(
                FindingKind::Unreferenced,
                directory.clone(),
                Vec::new(),
                detail,
            );
        }
        let all: Vec<u32> = (0..looked.backups.len() as u32).collect();
        for stray in stored.strays.iter().filter(|s| s.ends_with(PART)) {
            let detail = "was not finished, and keeps StarRocks from reading the snapshot";
            let kind = FindingKind::NotRestorable;
            looked.find(kind, format!("{directory}/{stray}"), all.clone(), detail);
        }
        if !stored.has_meta && !stored.infos.is_empty() {
            let object = format!("{directory}/__meta");
            looked.find(
                FindingKind::Missing,
                object,
                all.clone(),
                "the definitions of its tables",
            );
        }
        let mut of_tablets: BTreeMap<String, Vec<&StoredFile>> = BTreeMap::new();
        for file in &files {
            // Below __ss_<label>/__ss_content/__db_<id>.
            let mut parts = file.path.splitn(4, '/').skip(1);
            let (content, rest) = (parts.next(), parts.nth(1));
            match (file.status, rest.and_then(|rest| rest.rsplit_once('/'))) {
                (FileStatus::Foreign, _) => {
                    let detail = "nothing that a snapshot has is called so";
                    looked.find(FindingKind::Foreign, file.path.clone(), Vec::new(), detail);
                }
                (FileStatus::Partial, Some(_)) => {
                    let detail = "a file that was not finished";
                    looked.find(
                        FindingKind::Unreferenced,
                        file.path.clone(),
                        Vec::new(),
                        detail,
                    );
                }
                (FileStatus::Whole, Some((tablet, _))) if content == Some(CONTENT) => {
                    of_tablets.entry(tablet.to_owned()).or_default().push(file);
                }
                _ => {}
            }
        }
        for (place, info) in &infos {
            let metadata = files
                .iter()
                .filter(|f| f.tablet_id.is_none() && f.md5.is_some());
            looked
                .files
                .extend(metadata.map(|file| (file.clone(), *place)));
            check_tablets(&mut looked, &directory, (*place, info), &of_tablets);
        }
        let named: BTreeSet<String> = infos
            .iter()
            .flat_map(|(_, info)| tablets(info))
            .map(|(place, _)| place)
            .collect();
        // Without a readable __info_ file it is not known what is needed.
        let is_known = infos.len() == looked.backups.len() && !infos.is_empty();
        for (_, files) in of_tablets
            .iter()
            .filter(|(t, _)| is_known && !named.contains(*t))
        {
            let bytes: u64 = files.iter().map(|file| file.bytes).sum();
            let detail = format!("a tablet of {bytes} bytes that no __info_ file names");
            let object = directory_of(files);
            looked.find(FindingKind::Unreferenced, object, Vec::new(), &detail);
        }
        Ok(looked)
    }

    /// Reads the `__info_` files of a label: the backups that it has, in their order.
    async fn read_infos(
        &self,
        stored: &StoredLabel,
        tolerant: bool,
        looked: &mut Looked,
    ) -> Result<Vec<(u32, Info)>, Error> {
        let directory = format!("{LABEL_PREFIX}{}", stored.label);
        let mut infos = Vec::new();
        for one in &stored.infos {
            let object = format!("{directory}/{INFO_PREFIX}{}.{}", one.timestamp, one.md5);
            let label = SnapshotLabel::new(&stored.label);
            let named = label.and_then(|label| {
                let timestamp = BackupTimestamp::new(&one.timestamp)?;
                Ok(BackupName { label, timestamp })
            });
            let Ok(name) = named else {
                let detail = "its name tells no time of a backup";
                looked.find(FindingKind::Foreign, object, Vec::new(), detail);
                continue;
            };
            let place = match looked.backups.iter().position(|known| *known == name) {
                Some(known) => {
                    let detail = "a second file for the same time: StarRocks reads neither";
                    let kind = FindingKind::NotRestorable;
                    looked.find(kind, object.clone(), vec![known as u32], detail);
                    known as u32
                }
                None => {
                    looked.backups.push(name);
                    looked.backups.len() as u32 - 1
                }
            };
            let (kind, error) = match self.info(one).await {
                Ok(info) if info.name != stored.label => {
                    let detail = format!("it says that it is of snapshot \"{}\"", info.name);
                    (
                        FindingKind::ManifestDamaged,
                        Error::new(ErrorKind::Corrupted, detail),
                    )
                }
                Ok(info) => {
                    infos.push((place, info));
                    continue;
                }
                Err(e) if e.kind == ErrorKind::Corrupted => (FindingKind::ManifestDamaged, e),
                Err(e) if e.kind == ErrorKind::MissingFile => (FindingKind::Missing, e),
                Err(e) if tolerant => (FindingKind::Unreadable, e),
                Err(e) => return Err(e),
            };
            looked.find(kind, object, vec![place], &error.message);
        }
        Ok(infos)
    }

    /// Looks at one part of the files.
    pub async fn check_part(
        &self,
        set: &StoredSet,
        part: (u32, u32),
        request: &VerifyRequest,
        throttle: &Throttle,
        tolerant: bool,
    ) -> Result<Checked, Error> {
        let mut checked = Checked::default();
        let is_wanted = |file: &StoredFile| match request.level {
            VerifyLevel::Files => false,
            VerifyLevel::Checksum | VerifyLevel::Restore => is_sampled(file, request.sample),
        };
        let (to_read, others): (Vec<_>, Vec<_>) =
            set.part(part).partition(|(file, _)| is_wanted(file));
        if request.level == VerifyLevel::Files {
            checked.volume = volume(others.into_iter().map(|(file, _)| file));
        }
        let reading = to_read.into_iter().map(|(file, place)| {
            async move {
                let wrong = self.is_wrong(file, throttle, tolerant).await?;
                Ok::<_, Error>((file, *place, wrong))
            }
            .boxed()
        });
        let mut read =
            futures::stream::iter(reading.collect::<Vec<_>>()).buffer_unordered(READ_AT_A_TIME);
        while let Some((file, place, wrong)) = read.try_next().await? {
            checked.volume.add(volume([file].into_iter()));
            if let Some((kind, detail)) = wrong {
                checked.findings.push(Finding {
                    kind,
                    object: file.path.clone(),
                    backups: vec![place],
                    detail,
                });
            }
        }
        Ok(checked)
    }

    /// What was found, without what only snapshots need that have been dropped since.
    pub async fn without_dropped(
        &self,
        backups: &[BackupName],
        mut checked: Checked,
    ) -> Result<Checked, Error> {
        let concerned: BTreeSet<u32> = checked
            .findings
            .kept()
            .iter()
            .flat_map(|finding| finding.backups.iter().copied())
            .collect();
        let mut gone = BTreeSet::new();
        for place in concerned {
            let BackupName { label, timestamp } = &backups[place as usize];
            let there = self.label(label.as_str()).await?.infos;
            if !there
                .iter()
                .any(|info| info.timestamp == timestamp.as_str())
            {
                gone.insert(place);
            }
        }
        checked.findings = checked.findings.without(&gone);
        Ok(checked)
    }

    async fn is_wrong(
        &self,
        file: &StoredFile,
        throttle: &Throttle,
        tolerant: bool,
    ) -> Result<Option<(FindingKind, String)>, Error> {
        let Some(wanted) = &file.md5 else {
            return Ok(None);
        };
        let mut detail = String::new();
        for _ in 0..READS {
            match self.md5_of(&file.path, throttle).await {
                Ok((found, _)) if found.eq_ignore_ascii_case(wanted) => return Ok(None),
                Ok((found, bytes)) => detail = format!("{bytes} bytes with MD5 {found}"),
                Err(e) if e.kind == ErrorKind::MissingFile => {
                    let detail = format!("{} bytes are missing", file.bytes);
                    return Ok(Some((FindingKind::Missing, detail)));
                }
                Err(e) if tolerant && e.kind != ErrorKind::Cancelled => {
                    return Ok(Some((FindingKind::Unreadable, e.message)));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(Some((FindingKind::Damaged, detail)))
    }

    async fn md5_of(&self, file: &str, throttle: &Throttle) -> Result<(String, u64), Error> {
        let path = self.path(file).await?;
        let failed = |e| storage_error("read", &path, e);
        let found = self.store().get(&path).await.map_err(failed)?;
        let (mut stream, mut digest, mut bytes) = (found.into_stream(), Md5::new(), 0);
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(failed)?;
            throttle.pass(chunk.len() as u64).await?;
            digest.update(&chunk);
            bytes += chunk.len() as u64;
        }
        Ok((hex::encode(digest.finalize()), bytes))
    }
}

/// Whether a file is among so many of ten thousand; which ones goes by their MD5.
fn is_sampled(file: &StoredFile, sample: u32) -> bool {
    let last = file.md5.as_deref().and_then(|md5| md5.get(24..));
    let number = last.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    number.is_none_or(|number| number % SAMPLE_ALL < sample)
}

/// The directory of a tablet that has files.
fn directory_of(files: &[&StoredFile]) -> String {
    let first = files.first().and_then(|file| file.path.rsplit_once('/'));
    first
        .map(|(directory, _)| directory.to_owned())
        .unwrap_or_default()
}

/// Holds the tablets that an `__info_` file names against the files that are there.
fn check_tablets(
    looked: &mut Looked,
    directory: &str,
    (place, info): (u32, &Info),
    there: &BTreeMap<String, Vec<&StoredFile>>,
) {
    for (tablet, named) in tablets(info) {
        let object = format!("{directory}/{CONTENT}/…/{tablet}");
        let Some(files) = there.get(&tablet) else {
            let detail = "none of this tablet's files is there";
            looked.find(FindingKind::Missing, object, vec![place], detail);
            continue;
        };
        let object = directory_of(files);
        let mut known: BTreeMap<&str, u32> = BTreeMap::new();
        let mut whole = BTreeSet::new();
        for file in files {
            looked.files.push(((*file).clone(), place));
            let name = file.path.rsplit('/').next().unwrap_or_default();
            whole.insert(name);
            let name = split_md5(name).map_or(name, |(name, _)| name);
            *known.entry(name).or_default() += 1;
        }
        for (name, count) in &known {
            if *count > 1 {
                let detail = format!("{count} files of different MD5s are called so");
                let object = format!("{object}/{name}");
                looked.find(FindingKind::Damaged, object, vec![place], &detail);
            }
        }
        for name in named.iter().filter(|name| !whole.contains(name.as_str())) {
            let object = format!("{object}/{name}");
            looked.find(
                FindingKind::Missing,
                object,
                vec![place],
                "named by the __info_ file",
            );
        }
        let id = tablet.rsplit("/__").next().unwrap_or_default();
        let header = format!("{id}.hdr");
        let is_named = named.iter().any(|name| name.starts_with(&header));
        if !known.contains_key(header.as_str()) && !is_named {
            let object = format!("{object}/{header}");
            looked.find(
                FindingKind::Missing,
                object,
                vec![place],
                "the header of the tablet",
            );
        }
    }
}
