//! A repository that a StarRocks cluster writes, looked through from the bucket alone: whether what
//! its `__info_` files name is there, whether bytes have the MD5 of their names, and what else lies
//! about. Nothing is written.
//!
//! An `__info_` file names tablets and, in some versions, their files; lengths it does not have, so
//! a file that was cut short is found by its MD5. StarRocks looks for files by the beginnings of
//! their names, and for a tablet takes whatever stands in its directory; so what is too much keeps
//! it from a restore as what is missing does.

mod expected;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::{FutureExt, StreamExt, TryStreamExt};
use md5::{Digest, Md5};
use object_store::{ObjectStore, ObjectStoreExt};

use self::expected::{check_names, check_tablet, names_every_tablet, tablets};
use super::starrocks_layout::{
    FileStatus, INFO_PREFIX, Info, LABEL_PREFIX, PART, StarRocksRepository, StoredFile,
    StoredLabel, split_md5,
};
use super::survey::{UNFINISHED, is_sampled};
use super::throttle::Throttle;
use super::transfer::blocking;
use super::{LISTINGS, storage_error};
use crate::env::Env;
use crate::error::{Error, ErrorKind};
use crate::job::{
    BackupName, Checked, Finding, FindingKind, Findings, PARTS_MAX, VerifyLevel, VerifyPlan,
    VerifyRequest, Volume,
};
use crate::names::{BackupTimestamp, JobUid, SnapshotLabel};

/// Files of one part, on the average.
const FILES_PER_PART: usize = 256;
/// Files that are read at a time in one part.
const READ_AT_A_TIME: usize = 2;
/// How often a file that reads wrong is read before that is believed.
const READS: u32 = 3;
/// How often a label is looked at anew because a backup has gone meanwhile.
const LOOKS: u32 = 3;
/// Files that one verification looks at: their names are kept in memory.
const FILES_MAX: usize = 5_000_000;

/// A file that is looked at.
#[derive(Debug)]
struct SetFile {
    path: Box<str>,
    bytes: u64,
    /// The backups that need it, by their places.
    backups: Vec<u32>,
}

impl SetFile {
    fn md5(&self) -> &str {
        split_md5(&self.path).map_or("", |(_, md5)| md5)
    }

    fn first_byte(&self) -> u32 {
        let first = self.md5().get(..2).unwrap_or("00");
        u32::from_str_radix(first, 16).unwrap_or_default()
    }
}

/// The files of some snapshots, by the first bytes of their MD5s.
#[derive(Debug, Default)]
pub struct StoredSet(Vec<SetFile>);

impl StoredSet {
    /// Those of one part of so many; the same after a restart.
    fn part(&self, (part, parts): (u32, u32)) -> &[SetFile] {
        let bounds = [part, part + 1].map(|part| 256 * part / parts.max(1));
        let [from, to] = bounds.map(|bound| self.0.partition_point(|f| f.first_byte() < bound));
        &self.0[from..to]
    }

    /// How many files there are, and their bytes.
    pub fn volume(&self) -> Volume {
        let mut volume = Volume::default();
        self.0.iter().for_each(|file| volume.add(volume_of(file)));
        volume
    }

    /// Adds what one label has, whose first backup has this place.
    fn add(&mut self, files: BTreeMap<String, (u64, Vec<u32>)>, first: u32) -> Result<(), Error> {
        if self.0.len() + files.len() > FILES_MAX {
            let message = format!("more than {FILES_MAX} files in one verification");
            return Err(Error::new(ErrorKind::LimitExceeded, message)
                .hint("VERIFY SNAPSHOT looks at one snapshot."));
        }
        self.0
            .extend(files.into_iter().map(|(path, (bytes, backups))| {
                let backups = backups.into_iter().map(|place| first + place);
                SetFile {
                    path: path.into(),
                    bytes,
                    backups: backups.collect(),
                }
            }));
        Ok(())
    }

    fn sort(&mut self) {
        self.0.sort_by_key(SetFile::first_byte);
    }
}

fn volume_of(file: &SetFile) -> Volume {
    Volume {
        files: 1,
        bytes: file.bytes,
    }
}

/// What looking at one label came to.
#[derive(Default)]
struct Looked {
    backups: Vec<BackupName>,
    /// Files that backups need, by their places among these.
    files: BTreeMap<String, (u64, Vec<u32>)>,
    findings: Vec<Finding>,
    /// Whether something was not finished, and may be by now.
    is_unfinished: bool,
    /// Files that no backup needs, in groups that go together or stay.
    unneeded: Vec<Vec<StoredFile>>,
}

impl Looked {
    fn find(&mut self, kind: FindingKind, object: String, backups: &[u32], detail: &str) {
        self.findings.push(Finding {
            kind,
            object,
            backups: backups.to_vec(),
            detail: detail.to_owned(),
        });
    }

    fn need(&mut self, file: &StoredFile, place: u32) {
        let (_, backups) = self
            .files
            .entry(file.path.clone())
            .or_insert((file.bytes, Vec::new()));
        if backups.last() != Some(&place) {
            backups.push(place);
        }
    }

    fn has_damage(&self) -> bool {
        self.findings.iter().any(|finding| finding.kind.is_damage())
    }
}

impl StarRocksRepository {
    /// Files of a label that no backup needs, in groups that go together or stay.
    /// None, where not all that stands there is understood: what is not may need them.
    pub(super) async fn unneeded_of(&self, label: &str) -> Result<Vec<Vec<StoredFile>>, Error> {
        let looked = self.look(label, false).await?;
        if looked.has_damage() || self.hides_infos(label).await? {
            return Ok(Vec::new());
        }
        Ok(looked.unneeded)
    }

    /// Whether a directory has an `__info_` file that its listing left out, as one does that cannot
    /// be looked at.
    async fn hides_infos(&self, label: &str) -> Result<bool, Error> {
        let Some(directory) = self.local_path(&self.label_path(label).await?) else {
            return Ok(false);
        };
        let stored = self.label(label).await?;
        let strays = stored.strays.iter();
        let listed = stored.infos.len() + strays.filter(|s| s.starts_with(INFO_PREFIX)).count();
        blocking(move || {
            let failed = |e| Error::io("list", &directory, e).of_kind(ErrorKind::Storage);
            let entries = match std::fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
                Err(e) => return Err(failed(e)),
            };
            let mut there = 0;
            for entry in entries {
                let name = entry.map_err(failed)?.file_name();
                there += usize::from(name.to_string_lossy().starts_with(INFO_PREFIX));
            }
            Ok(there != listed)
        })
        .await
    }

    /// Reads the `__info_` files that a verification is about, and sees what there is to look at.
    /// 42704 if there is no such snapshot. `tolerant`: what cannot be read is a finding. With an
    /// environment, what may be under way is waited for.
    pub async fn plan_verification(
        &self,
        request: &VerifyRequest,
        tolerant: bool,
        env: Option<&Env>,
    ) -> Result<(VerifyPlan, StoredSet), Error> {
        let mut plan = VerifyPlan {
            repository_id: self.ping().await?,
            restores: request.level == VerifyLevel::Restore,
            ..VerifyPlan::default()
        };
        let labels = match &request.label {
            Some(label) => vec![label.to_string()],
            None => self.labels().await?,
        };
        let looking = labels
            .iter()
            .map(|label| self.look(label, tolerant).boxed());
        let mut looking = futures::stream::iter(looking.collect::<Vec<_>>()).buffered(LISTINGS);
        let mut set = StoredSet::default();
        let (mut labels, mut has_waited) = (labels.iter(), false);
        while let Some(mut looked) = looking.try_next().await? {
            let label = labels.next().map(String::as_str).unwrap_or_default();
            if let (true, Some(env)) = (looked.is_unfinished, env) {
                if !has_waited {
                    env.clock.sleep(UNFINISHED).await;
                    has_waited = true;
                }
                looked = self.look(label, tolerant).await?;
            }
            if request.label.is_some() && looked.backups.is_empty() && looked.findings.is_empty() {
                let name = self.name();
                let message = format!("Snapshot does not exist in repository {name}: {label}");
                return Err(Error::new(ErrorKind::UndefinedObject, message)
                    .hint(format!("See SHOW SNAPSHOT ON {name}.")));
            }
            let first = plan.backups.len() as u32;
            plan.backups.append(&mut looked.backups);
            set.add(looked.files, first)?;
            for mut finding in looked.findings {
                finding.backups.iter_mut().for_each(|place| *place += first);
                plan.findings.push(finding);
            }
        }
        if request.label.is_none() {
            self.find_strays(&mut plan.findings).await?;
        }
        set.sort();
        plan.files = set.volume();
        plan.parts = set.0.len().div_ceil(FILES_PER_PART).min(PARTS_MAX as usize) as u32;
        Ok((plan, set))
    }

    /// The files of these backups, read again after a restart, and what is wrong with their
    /// `__info_` files by now.
    pub async fn files_of(
        &self,
        backups: &[BackupName],
        tolerant: bool,
    ) -> Result<(StoredSet, Vec<Finding>), Error> {
        let places: HashMap<&BackupName, u32> = backups.iter().zip(0..).collect();
        let labels: BTreeSet<&SnapshotLabel> = backups.iter().map(|b| &b.label).collect();
        let (mut set, mut findings) = (StoredSet::default(), Vec::new());
        for label in labels {
            let looked = self.look(label.as_str(), tolerant).await?;
            let place = |found: &u32| places.get(&looked.backups[*found as usize]).copied();
            let mut files = BTreeMap::new();
            for (path, (bytes, found)) in &looked.files {
                let found: Vec<u32> = found.iter().filter_map(place).collect();
                if !found.is_empty() {
                    files.insert(path.clone(), (*bytes, found));
                }
            }
            set.add(files, 0)?;
            for finding in &looked.findings {
                let backups: Vec<u32> = finding.backups.iter().filter_map(place).collect();
                if finding.kind.is_damage() && !backups.is_empty() {
                    findings.push(Finding {
                        backups,
                        ..finding.clone()
                    });
                }
            }
        }
        set.sort();
        Ok((set, findings))
    }

    /// What lies in the repository's directory itself and is none of a repository's.
    async fn find_strays(&self, findings: &mut Findings) -> Result<(), Error> {
        let (directories, files) = self.top().await?;
        let known = |name: &str| name == "__repo_info" || name.starts_with(LABEL_PREFIX);
        let strange = directories.into_iter().chain(files);
        for object in strange.filter(|name| !name.is_empty() && !known(name)) {
            findings.push(Finding {
                kind: FindingKind::Foreign,
                object,
                backups: Vec::new(),
                detail: "nothing that a repository has is called so".into(),
            });
        }
        Ok(())
    }

    /// Looks at everything under one label. What is dropped meanwhile is looked at anew, so nothing
    /// is said of it.
    async fn look(&self, label: &str, tolerant: bool) -> Result<Looked, Error> {
        let mut looks = 1;
        loop {
            let looked = match self.look_once(label, tolerant).await {
                Err(e) if tolerant && e.kind == ErrorKind::Storage => {
                    let mut looked = Looked::default();
                    let object = format!("{LABEL_PREFIX}{label}");
                    looked.find(FindingKind::Unreadable, object, &[], &e.message);
                    return Ok(looked);
                }
                looked => looked?,
            };
            if !looked.has_damage() || looks == LOOKS {
                return Ok(looked);
            }
            let there = self.label(label).await?.infos;
            let is_gone = |backup: &BackupName| {
                let mut times = there.iter().map(|info| &info.timestamp);
                !times.any(|time| time == backup.timestamp.as_str())
            };
            if !looked.backups.iter().any(is_gone) {
                return Ok(looked);
            }
            looks += 1;
        }
    }

    async fn look_once(&self, label: &str, tolerant: bool) -> Result<Looked, Error> {
        let mut looked = Looked::default();
        let stored = self.label(label).await?;
        let files: Vec<StoredFile> = self.files(Some(label)).await?.try_collect().await?;
        let directory = format!("{LABEL_PREFIX}{label}");
        let infos = self.read_infos(&stored, tolerant, &mut looked).await?;
        if stored.infos.is_empty() && !files.is_empty() {
            let detail = "no __info_ file: a backup that is under way, or was broken off";
            looked.find(FindingKind::Unreferenced, directory.clone(), &[], detail);
            looked.unneeded.extend(broken_off(&files));
        }
        check_names(&mut looked, &directory, &stored);
        let mut of_tablets: BTreeMap<&str, Vec<&StoredFile>> = BTreeMap::new();
        for file in &files {
            if file.tablet_id.is_some() {
                let below = file.path.split_once('/').map_or("", |(_, below)| below);
                let tablet = below.rsplit_once('/').map_or("", |(tablet, _)| tablet);
                of_tablets.entry(tablet).or_default().push(file);
            } else if file.status == FileStatus::Whole {
                for (place, _) in &infos {
                    looked.need(file, *place);
                }
            } else if file.status == FileStatus::Foreign && !is_marker(file) {
                let detail = "nothing that a snapshot has is called so";
                looked.find(FindingKind::Foreign, file.path.clone(), &[], detail);
            }
        }
        let mut named = BTreeSet::new();
        for (place, info) in &infos {
            for tablet in tablets(info) {
                check_tablet(&mut looked, &directory, *place, &tablet, &of_tablets);
                named.insert(tablet.directory);
            }
        }
        // Without a readable __info_ file it is not known what is needed.
        let is_known = infos.len() == looked.backups.len() && !infos.is_empty();
        // One whose name tells no time may name it, and so may what is not understood.
        let is_understood = infos.len() == stored.infos.len()
            && infos.iter().all(|(_, info)| names_every_tablet(info));
        let mut others = of_tablets
            .iter()
            .filter(|(tablet, _)| !named.contains(**tablet));
        while let (true, Some((tablet, files))) = (is_known, others.next()) {
            let bytes: u64 = files.iter().map(|file| file.bytes).sum();
            let detail = format!("a tablet of {bytes} bytes that no __info_ file names");
            let object = format!("{directory}/{tablet}");
            looked.find(FindingKind::Unreferenced, object, &[], &detail);
            if is_understood {
                let ours = files.iter().filter(|f| f.status != FileStatus::Foreign);
                let ours = ours.map(|file| (*file).clone());
                looked.unneeded.push(ours.collect());
            }
        }
        let left = looked.findings.iter().filter(|finding| {
            finding.kind == FindingKind::Unreferenced && finding.object.ends_with(PART)
        });
        let left: BTreeSet<&str> = left.map(|finding| finding.object.as_str()).collect();
        let left = files
            .iter()
            .filter(|file| left.contains(file.path.as_str()));
        looked.unneeded.extend(left.map(|file| vec![file.clone()]));
        looked.is_unfinished = files.iter().any(|file| file.status == FileStatus::Partial);
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
                looked.find(FindingKind::Foreign, object, &[], detail);
                continue;
            };
            let known = looked.backups.iter().position(|known| *known == name);
            let place = known.unwrap_or(looked.backups.len()) as u32;
            if known.is_none() {
                looked.backups.push(name);
            }
            let (kind, error) = match self.info(one).await {
                Ok(info) if info.name != stored.label => {
                    let detail = format!("it says that it is of snapshot \"{}\"", info.name);
                    let error = Error::new(ErrorKind::Corrupted, detail);
                    (FindingKind::ManifestDamaged, error)
                }
                Ok(info) => {
                    infos.push((place, info));
                    continue;
                }
                Err(e) if e.kind == ErrorKind::Corrupted => (FindingKind::ManifestDamaged, e),
                Err(e) if e.kind == ErrorKind::MissingFile => (FindingKind::Missing, e),
                Err(e) if e.kind == ErrorKind::LimitExceeded => (FindingKind::Unreadable, e),
                Err(e) if tolerant && e.kind == ErrorKind::Storage => (FindingKind::Unreadable, e),
                Err(e) => return Err(e),
            };
            looked.find(kind, object, &[place], &error.message);
        }
        Ok(infos)
    }

    /// Looks at one part of the files.
    pub async fn check_part(
        &self,
        set: &StoredSet,
        part: (u32, u32),
        request: &VerifyRequest,
        job: &JobUid,
        (throttle, tolerant): (&Throttle, bool),
    ) -> Result<Checked, Error> {
        let mut checked = Checked::default();
        let files = set.part(part);
        if request.level == VerifyLevel::Files {
            files
                .iter()
                .for_each(|file| checked.volume.add(volume_of(file)));
            return Ok(checked);
        }
        let wanted = files
            .iter()
            .filter(|file| is_sampled(&file.path, job, request.sample));
        let reading = wanted.map(|file| {
            async move {
                let wrong = self.is_wrong(file, throttle, tolerant).await?;
                Ok::<_, Error>((file, wrong))
            }
            .boxed()
        });
        let mut read =
            futures::stream::iter(reading.collect::<Vec<_>>()).buffer_unordered(READ_AT_A_TIME);
        while let Some((file, wrong)) = read.try_next().await? {
            checked.volume.add(volume_of(file));
            if let Some((kind, detail)) = wrong {
                checked.findings.push(Finding {
                    kind,
                    object: file.path.to_string(),
                    backups: file.backups.clone(),
                    detail,
                });
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
        file: &SetFile,
        throttle: &Throttle,
        tolerant: bool,
    ) -> Result<Option<(FindingKind, String)>, Error> {
        let mut detail = String::new();
        for _ in 0..READS {
            match self.md5_of(&file.path, throttle).await {
                Ok((found, _)) if found.eq_ignore_ascii_case(file.md5()) => return Ok(None),
                Ok((found, bytes)) => detail = format!("{bytes} bytes with MD5 {found}"),
                Err(e) if e.kind == ErrorKind::MissingFile => {
                    let detail = format!("{} bytes are missing", file.bytes);
                    return Ok(Some((FindingKind::Missing, detail)));
                }
                Err(e) if tolerant && e.kind == ErrorKind::Storage => {
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

    /// The names of the directories and files that stand directly in the repository's directory.
    async fn top(&self) -> Result<(Vec<String>, Vec<String>), Error> {
        let root = self.root_path().await?;
        let listed = self.store().list_with_delimiter(Some(&root)).await;
        let listed = listed.map_err(|e| storage_error("list", &root, e))?;
        let name = |path: &object_store::path::Path| path.filename().unwrap_or_default().to_owned();
        let is_below = |path: &object_store::path::Path| *path != root;
        Ok((
            listed.common_prefixes.iter().map(name).collect(),
            listed
                .objects
                .iter()
                .filter(|object| is_below(&object.location) && object.size > 0)
                .map(|object| name(&object.location))
                .collect(),
        ))
    }
}

/// What a backup has left that was broken off: everything that StarRocks has written under its
/// label. Nothing, where something there may be an end that is not known.
fn broken_off(files: &[StoredFile]) -> Option<Vec<StoredFile>> {
    let name = |file: &StoredFile| file.path.rsplit('/').next().unwrap_or_default().to_owned();
    let is_strange = |file: &&StoredFile| {
        file.status == FileStatus::Foreign && name(file).starts_with(INFO_PREFIX)
    };
    let written = files.iter().filter(|f| f.status != FileStatus::Foreign);
    let written: Vec<_> = written.cloned().collect();
    (files.iter().find(is_strange).is_none() && !written.is_empty()).then_some(written)
}

/// An empty object that some tools put in a directory's place.
pub(super) fn is_marker(file: &StoredFile) -> bool {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    file.bytes == 0 && (name.is_empty() || name.starts_with("__"))
}
